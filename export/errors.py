class ExportError(Exception):
    """A mistake that a person can make and mend: the message says what, where and what to do.

    The command line prints the message alone and exits with 3, but where a class says otherwise; a
    library caller catches this class.
    """


class SignatureError(ExportError):
    """A bundle is refused: it is not signed, or not what was signed.

    The command line prints the message alone and exits with 1.
    """
