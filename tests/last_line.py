"""What a command said last: of an error, the one line that a user sees."""


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]
