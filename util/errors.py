"""The one exception for mistakes that the user can mend."""


class UserError(Exception):
    """Bad input: an option, a file, a row. Its text names what is wrong and the fix, on one line.

    The programs print the text without a traceback and exit with code 2.
    """
