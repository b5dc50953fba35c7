def retry_call(f, tries, exceptions):
    for attempt in range(tries):
        try:
            return f()
        except exceptions:
            if attempt == tries - 1:
                raise
