"""For discriminators with quantised features, which the tests do not make."""

VectorQuantize = None
