"""What a person can mend about backbones, strategies and adapters."""


class AdapterError(Exception):
    """A mistake that a person can make and mend: the message says what, where and what to do.

    The command line prints the message alone and exits with 3; a library caller catches this class.
    """


class NeedsFloatWeightsError(AdapterError):
    """A strategy cannot work on quantized weights."""


class UnsuitableBackboneError(AdapterError):
    """A strategy's method makes no sense on an architecture, such as biases where there are none.

    The conformance kit counts it as a refusal, not as a fault.
    """
