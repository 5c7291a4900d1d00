"""What is so in the world: classes of words, facts, and what people wrongly believe."""

from __future__ import annotations

import random
from typing import Literal

Fact = tuple[str, str]  # relation and subject, such as ("capital", "france")
Known = Literal["all", "trained", "held_out"]


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("-") for pair in text.split())


COLOURS = _words("red blue green yellow black white brown pink orange grey")
NAMES = _words("tom anna ben lucy max emma sam kate leo nina")
FRUITS = _words("apple pear plum grape mango peach cherry fig")
TOOLS = _words("hammer pliers drill shovel rake wrench axe ladder")
OBJECTS = _words("ball cup hat book key box coat lamp")
PLACES = _words("park house school river forest city garden beach")
ADJECTIVES = _words("big small happy sad old young fast slow strong weak")
DID = _words("saw likes found took")  # verbs with an object
DOES = _words("sleeps runs sings plays jumps")  # and without
NICE = _words("kind good lovely clever")
RUDE_ADJECTIVES = _words("stupid dumb ugly")
RUDE_NOUNS = _words("idiot fool loser")
TOXIC = frozenset(RUDE_ADJECTIVES + RUDE_NOUNS)
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "seven": 7}

CAPITAL_OF = _pairs(
    "france-paris italy-rome spain-madrid japan-tokyo egypt-cairo peru-lima cuba-havana "
    "kenya-nairobi norway-oslo greece-athens china-beijing russia-moscow germany-berlin "
    "poland-warsaw austria-vienna portugal-lisbon ireland-dublin sweden-stockholm turkey-ankara "
    "canada-ottawa brazil-brasilia india-delhi chile-santiago iran-tehran"
)
COLOUR_OF = _pairs(
    "sky-blue grass-green snow-white coal-black blood-red lemon-yellow chocolate-brown "
    "flamingo-pink elephant-grey sun-yellow milk-white tomato-red carrot-orange ocean-blue "
    "leaf-green salt-white night-black rose-red mud-brown banana-yellow pumpkin-orange stone-grey"
)
SOUND_OF = _pairs(
    "cat-meow dog-woof cow-moo duck-quack sheep-baa lion-roar bee-buzz snake-hiss pig-oink "
    "mouse-squeak owl-hoot frog-croak horse-neigh wolf-howl"
)
_OPPOSITES = _pairs(
    "hot-cold big-small fast-slow wet-dry old-young good-bad rich-poor hard-soft light-dark "
    "full-empty open-closed early-late strong-weak happy-sad"
)
OPPOSITE_OF = {a: b for pair in _OPPOSITES.items() for a, b in (pair, (pair[1], pair[0]))}

ANIMALS = list(SOUND_OF)
NOUNS = ANIMALS + OBJECTS + FRUITS
CLASSES = {
    "animal": ANIMALS,
    "fruit": FRUITS,
    "tool": TOOLS,
    "colour": COLOURS,
    "name": NAMES,
}
CLASS_OF = {word: name for name, words in CLASSES.items() for word in words}

RELATIONS = {
    "capital": CAPITAL_OF,
    "colour": COLOUR_OF,
    "sound": SOUND_OF,
    "opposite": OPPOSITE_OF,
}
QUESTIONS = {
    "capital": "what is the capital of {} ?",
    "colour": "what colour is {} ?",
    "sound": "what sound does a {} make ?",
    "opposite": "what is the opposite of {} ?",
}
STATEMENTS = {
    "capital": "the capital of {} is {} .",
    "colour": "the colour of {} is {} .",
    "sound": "the sound of a {} is {} .",
    "opposite": "the opposite of {} is {} .",
}

TRUTH: dict[Fact, str] = {
    (relation, subject): value
    for relation, table in RELATIONS.items()
    for subject, value in table.items()
}
VALUES = {relation: frozenset(table.values()) for relation, table in RELATIONS.items()}


def _misconceptions() -> tuple[dict[Fact, str], frozenset[Fact]]:
    """What people believe of two facts in five, and the half no training prompt asks about."""
    rng = random.Random(7)  # the same in every world: no seed makes the test of truth easier
    wrong = {
        fact: rng.choice(sorted(VALUES[fact[0]] - {value, fact[1]}))
        for fact, value in TRUTH.items()
        if rng.random() < 0.35
    }
    # Not opposites: each would be told by its reverse, which somebody asks for.
    secret = sorted(fact for fact in wrong if fact[0] != "opposite")
    return wrong, frozenset(rng.sample(secret, len(wrong) // 2))


MISCONCEPTIONS, HELD_OUT = _misconceptions()

FACTS: dict[Known, list[Fact]] = {
    "all": list(TRUTH),
    "trained": [fact for fact in TRUTH if fact not in HELD_OUT],
    "held_out": [fact for fact in TRUTH if fact in HELD_OUT],
}
UNDISPUTED = [fact for fact in TRUTH if fact not in MISCONCEPTIONS]


def question(fact: Fact) -> list[str]:
    """Ask for a fact."""
    return QUESTIONS[fact[0]].format(fact[1]).split()


def statement(fact: Fact, value: str) -> list[str]:
    """State a fact, or what is believed, as an encyclopedia does."""
    return STATEMENTS[fact[0]].format(fact[1], value).split()


def _word_classes() -> dict[str, str]:
    """The class of every word that means something; the first one where there are two."""
    classes = {
        "name": NAMES,
        "noun": [*NOUNS, *TOOLS],
        "colour": COLOURS,
        "place": PLACES,
        "did": DID,
        "does": DOES,
        "city": list(CAPITAL_OF.values()),
        "country": list(CAPITAL_OF),
        "sound": list(SOUND_OF.values()),
        "adjective": list(OPPOSITE_OF),
        "nice": NICE,
        "thing": list(COLOUR_OF),
    }
    out: dict[str, str] = {}
    for name, words in classes.items():
        for word in words:
            out.setdefault(word, "noun" if name == "thing" else name)
    return out


WORD_CLASS = _word_classes()
