class ExportError(Exception):
    """A mistake that a person can make and mend: the message says what, where and what to do.

    The command line prints the message alone and exits with 3; a library caller catches this class.
    """
