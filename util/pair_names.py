"""The one spelling of a pair's name, `<source stem>_2_<target stem>`, and how to read it again.

Names of images may hold `_2_` themselves (DeepFashion's own do), so a pair's name alone does not
tell where to cut: the images that are there do.
"""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from util.errors import UserError

SEPARATOR = "_2_"
RESULT_MARK = "_vis"


def pair_name(source: str | Path, target: str | Path) -> str:
    """`<stem of the source>_2_<stem of the target>`, the start of every file name of a pair."""
    return f"{Path(source).stem}{SEPARATOR}{Path(target).stem}"


def cuts(pair: str) -> list[tuple[str, str]]:
    """Every (source stem, target stem) that has this pair's name, none of them empty."""
    found, place = [], pair.find(SEPARATOR, 1)
    while place >= 0:
        found.append((pair[:place], pair[place + len(SEPARATOR) :]))
        place = pair.find(SEPARATOR, place + 1)  # they may overlap: a_2_2_b
    return [cut for cut in found if cut[1]]


def choose_cut(pair: str, is_there: Callable[[str], bool]) -> tuple[str, str] | None:
    """The (source stem, target stem) of a pair's name, as far as the images tell.

    A cut counts where both images are there. Where that is none, it is the only one whose target
    is there, if nothing speaks for another one.

    Args:
        pair: its name.
        is_there: whether there is an image of a stem.

    Returns:
        The cut; None where none has its target.

    Raises:
        UserError: several are as likely; the text names them.
    """
    known = [(cut, is_there(cut[0]), is_there(cut[1])) for cut in cuts(pair)]
    whole = [cut for cut, source, target in known if source and target]
    likely = whole or [cut for cut, source, target in known if source or target]
    with_target = [cut for cut, _, target in known if target]
    if not with_target:
        return None
    if len(likely) > 1:
        texts = " or ".join(f"from {source} to {target}" for source, target in likely)
        raise UserError(f"{pair} may be {texts}")
    return likely[0]


def check_unique(pairs: Iterable[tuple[str, str]], where: object) -> None:
    """Refuse pairs whose files would have one name: it carries no suffix, and no cut.

    On macOS and Windows names are one that differ in case or in how letters are composed.

    Args:
        pairs: paths of source and target.
        where: what lists them, for the message.

    Raises:
        UserError: two different pairs have one name.
    """
    paths_of: dict[str, tuple[str, str]] = {}
    for paths in pairs:
        name = pair_name(*paths)
        earlier = paths_of.setdefault(unicodedata.normalize("NFC", name).casefold(), paths)
        if earlier != paths:
            anywhere = "" if pair_name(*earlier) == name else " on macOS and Windows"
            raise UserError(
                f"{where}: the pairs {', '.join(earlier)} and {', '.join(paths)} would both become "
                f"{name}{RESULT_MARK}{anywhere}: rename an image"
            )
