"""Whether the bytes of a checkpoint are those that were written.

A file of torch.save is a zip archive with a CRC-32 of every record, which torch.load does not
compare: a flipped bit among the weights would load as another weight.
"""

import zipfile
from pathlib import Path

from util.errors import UserError

_ZIP_START = b"PK\x03\x04"


def verify_zip_checksums(path: Path) -> None:
    """Compare every record of a checkpoint with its checksum; the whole file is read once.

    A file that is no zip archive passes unchecked: the form that torch.save wrote before PyTorch
    1.6 (and still does with _use_new_zipfile_serialization=False) holds no checksums, so damage to
    its weights cannot be noticed.

    Raises:
        UserError: a record is not what was written, the archive is cut off, or the file cannot be
            read.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_ZIP_START)) != _ZIP_START:
                return
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
    except MemoryError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile raises many kinds for a garbled archive
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot read the checkpoint {path}: it is cut off or damaged ({reason[:120]}); "
            "copy it again, or take another one with --which_iter"
        ) from None
    if damaged is not None:
        raise UserError(
            f"cannot read the checkpoint {path}: it is damaged (the checksum of its record "
            f"{damaged} does not fit); copy it again, or take another one with --which_iter"
        )
