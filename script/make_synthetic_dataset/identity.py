"""A person: body proportions, colours and clothes, all drawn from one random generator."""

from dataclasses import dataclass

import numpy as np

from script.make_synthetic_dataset.textures import (
    CLOTH,
    HAIR,
    SKIN,
    TROUSERS,
    Fabric,
    jitter,
    random_colour,
    random_fabric,
)

TOPS = ("tee", "polo", "shirt", "tank", "long_sleeve", "jacket")
BOTTOMS = ("trousers", "shorts", "skirt", "dress")


@dataclass
class Identity:
    """What stays the same in all pictures of a person. Lengths in metres, colours in [0, 1]."""

    female: bool
    height: float
    girth: float  # width of trunk and limbs against the average, 1 = average
    shoulder: float  # half the distance between the shoulder joints
    hip: float  # half-width of the hips
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str
    beard: float  # 0..1
    glasses: bool
    top: str
    sleeve: float  # share of the arm covered, 0..1
    hem: float  # height of the lower edge of the top in a body of 1.75 m
    neckline: float  # depth of the opening in metres
    loose: float  # cloth's distance from the body in metres
    top_fabric: Fabric
    inner: np.ndarray  # colour of what is worn below an open jacket
    emblem: int  # 0 = none, else the kind of picture on the chest
    bottom: str
    leg: float  # share of the leg covered, 0..1
    bottom_fabric: Fabric
    shoe: np.ndarray
    sole: np.ndarray
    socks: np.ndarray | None
    bag: str  # "none", "backpack" or "shoulder_bag"
    bag_colour: np.ndarray
    seed: int  # of the wrinkles and prints


def random_identity(rng: np.random.Generator, layout: str) -> Identity:
    """A person dressed for the street (`layout` "market") or the studio ("fashion")."""
    female = bool(rng.random() < (0.45 if layout == "market" else 0.6))
    girth = float(np.clip(rng.normal(1.0, 0.06), 0.88, 1.15))
    if female:
        height = float(np.clip(rng.normal(1.66, 0.05), 1.54, 1.8))
        shoulder, hip = rng.normal(0.162, 0.006), rng.normal(0.172, 0.008)
        styles, chances = (
            ("long", "ponytail", "bob", "bun", "short", "cap"),
            (0.38, 0.24, 0.16, 0.11, 0.06, 0.05),
        )
        tops, top_chances = TOPS, (0.27, 0.05, 0.13, 0.22, 0.2, 0.13)
        bottoms, bottom_chances = BOTTOMS, (0.42, 0.18, 0.18, 0.22)
    else:
        height = float(np.clip(rng.normal(1.77, 0.06), 1.62, 1.93))
        shoulder, hip = rng.normal(0.185, 0.007), rng.normal(0.163, 0.006)
        styles, chances = ("short", "crop", "bald", "cap"), (0.58, 0.22, 0.06, 0.14)
        tops, top_chances = TOPS, (0.34, 0.12, 0.17, 0.06, 0.15, 0.16)
        bottoms, bottom_chances = BOTTOMS[:2], (0.68, 0.32)
    top = str(rng.choice(tops, p=top_chances))
    bottom = str(rng.choice(bottoms, p=bottom_chances))
    if bottom == "dress" and top in ("polo", "shirt", "jacket"):
        top = "tee"
    sleeve = {
        "tee": rng.uniform(0.22, 0.34),
        "polo": rng.uniform(0.24, 0.34),
        "shirt": 0.97 if rng.random() < 0.5 else rng.uniform(0.28, 0.5),
        "tank": 0.0,
        "long_sleeve": rng.choice([0.97, 0.95, 0.7]),
        "jacket": 0.98,
    }[top]
    hem = 0.99 if top == "shirt" and rng.random() < 0.3 else rng.uniform(0.87, 0.97)
    skin = jitter(rng, SKIN[rng.choice(5, p=[0.28, 0.32, 0.2, 0.1, 0.1])], 0.02)
    top_fabric = random_fabric(rng, CLOTH, plain=0.42)
    if bottom in ("skirt", "dress"):
        bottom_fabric = random_fabric(rng, CLOTH, plain=0.55)
    else:
        bottom_fabric = random_fabric(rng, TROUSERS, plain=0.86)
    if bottom == "dress":
        bottom_fabric = top_fabric
    leg = {
        "trousers": 0.97 if rng.random() < 0.85 else rng.uniform(0.78, 0.9),
        "shorts": rng.uniform(0.22, 0.52),
        "skirt": rng.uniform(0.28, 0.62),
        "dress": rng.uniform(0.3, 0.7),
    }[bottom]
    bag = "none"
    if layout == "market":
        bag = str(rng.choice(["none", "backpack", "shoulder_bag"], p=[0.6, 0.25, 0.15]))
    shoe = random_colour(rng, TROUSERS if rng.random() < 0.5 else CLOTH[:8])
    return Identity(
        female=female,
        height=height,
        girth=girth,
        shoulder=float(shoulder),
        hip=float(hip * (0.55 + 0.45 * girth)),
        skin=skin,
        hair=jitter(rng, HAIR[rng.choice(5, p=[0.34, 0.26, 0.2, 0.1, 0.1])], 0.02),
        hair_style=str(rng.choice(styles, p=chances)),
        beard=0.0 if female or rng.random() < 0.6 else float(rng.uniform(0.3, 0.9)),
        glasses=bool(rng.random() < 0.15),
        top=top,
        sleeve=float(sleeve),
        hem=float(hem),
        neckline=float(rng.uniform(0.02, 0.10) if female else rng.uniform(0.01, 0.045)),
        loose=float(rng.uniform(0.006, 0.022) + (0.012 if top == "jacket" else 0)),
        top_fabric=top_fabric,
        inner=random_colour(rng, CLOTH[:8]),
        emblem=int(rng.integers(1, 5)) if rng.random() < 0.4 else 0,
        bottom=bottom,
        leg=float(leg),
        bottom_fabric=bottom_fabric,
        shoe=shoe,
        sole=random_colour(rng, CLOTH[[0, 1, 16, 17]]),
        socks=random_colour(rng, CLOTH[:3]) if rng.random() < 0.4 else None,
        bag=bag,
        bag_colour=random_colour(rng, CLOTH),
        seed=int(rng.integers(2**31)),
    )
