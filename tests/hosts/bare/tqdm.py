"""No progress bar."""


class tqdm:
    def __init__(self, initial=0, total=None, **_):
        self.n = initial

    def refresh(self):
        pass
