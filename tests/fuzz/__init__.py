"""Hostile files, made from honest ones, and what the program's readers do with them.

One module per format. It has `generate(rng, folder)`, which writes an input into an empty folder,
and `read(folder)`, which gives it to the readers. A UserError of one line is a right outcome, and
so is reading on; all else is a finding (harness.py). `mutations.py` has what several formats use.
"""
