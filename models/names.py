"""Names of the models, for those that the models themselves import."""

from util.registry import names_in


def model_names() -> list[str]:
    """Names that --model takes."""
    return names_in("models", "_model", left_out="base")
