"""The one error that is the user's to mend."""


class UserError(ValueError):
    """A mistake that the user can mend.

    The message is one clear sentence that names the thing, its value and the way out. The verbs print it
    to stderr without a traceback and exit with status 2.
    """
