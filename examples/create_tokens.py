"""Makes tokens of values, as picas' create_tokens does: one token for each value of each field."""

from tokenpool.documents import Task


def create_tokens(fields, offset=0):
    """Return unsaved tokens ``token_<offset>``, ``token_<offset + 1>``, …

    >>> [(token.id, token["input"]) for token in create_tokens({"input": ["echo a", "echo b"]}, offset=5)]
    [('token_5', 'echo a'), ('token_6', 'echo b')]
    """
    pairs = [(name, value) for name, values in fields.items() for value in values]
    return [Task({"_id": f"token_{offset + i}", "type": "token", name: value}) for i, (name, value) in enumerate(pairs)]
