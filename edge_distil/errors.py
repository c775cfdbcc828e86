"""Errors that are the user's to fix: one line that says what is wrong, one that says what to do about it."""


class UserError(Exception):
    """Something that the user can fix. The command line prints it as `error: …` and `hint: …` and exits with 2.

    `message` names the file, the line or the field at fault; `hint` is the next thing to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
