"""Forms of personal data that were written down after the patterns and changed nothing in them."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from hygiene_truth import CARRIERS, HOSTS, NAMES, SURNAMES, Planted, digits
from hygiene_truth import card as plain_card
from hygiene_truth import iban as plain_iban
from hygiene_truth import public_v4 as plain_v4
from hygiene_truth import ssn as plain_ssn

Maker = Callable[[random.Random], str]


def some(rng: random.Random, signs: str, count: int) -> str:
    return "".join(rng.choices(signs, k=count))


LETTERS = string.ascii_letters + string.digits
UNSEEN: dict[str, dict[str, Maker]] = {
    "email": {
        "with a name": lambda r: f"{r.choice(NAMES)}.{r.choice(SURNAMES)}@{r.choice(HOSTS)}.museum",
        "capitals": lambda r: f"{r.choice(NAMES)}@{r.choice(HOSTS)}.com".upper(),
        "digits": lambda r: f"{digits(r, 6)}@{r.choice(HOSTS)}.cn",
        "subdomains": lambda r: f"{r.choice(NAMES)}@mail.cs.{r.choice(HOSTS)}.ac.uk",
        "underscores for signs": lambda r: f"{r.choice(NAMES)}_at_{r.choice(HOSTS)}_dot_com",
        "half hidden": lambda r: f"{r.choice(NAMES)}@{r.choice(HOSTS)} dot com",
        "entity": lambda r: f"{r.choice(NAMES)}&#64;{r.choice(HOSTS)}.com",
        "spaced": lambda r: f"{r.choice(NAMES)}.{r.choice(SURNAMES)} @ {r.choice(HOSTS)}.com",
        "in another language": lambda r: f"{r.choice(NAMES)} arroba {r.choice(HOSTS)} punto es",
    },
    "phone": {
        "Australia": lambda r: f"+61 4{digits(r, 2)} {digits(r, 3)} {digits(r, 3)}",
        "Australia, national": lambda r: f"04{digits(r, 2)} {digits(r, 3)} {digits(r, 3)}",
        "China, national": lambda r: f"138 {digits(r, 4)} {digits(r, 4)}",
        "Brazil": lambda r: f"+55 (11) 9{digits(r, 4)}-{digits(r, 4)}",
        "Brazil, national": lambda r: f"(11) 9{digits(r, 4)}-{digits(r, 4)}",
        "Russia, national": lambda r: f"8 (495) {digits(r, 3)}-{digits(r, 2)}-{digits(r, 2)}",
        "Sweden, national": lambda r: f"070-{digits(r, 3)} {digits(r, 2)} {digits(r, 2)}",
        "extension": lambda r: f"(617) 555-{digits(r, 4)} ext. {digits(r, 2)}",
        "slashes": lambda r: f"617/555/{digits(r, 4)}",
        "ten digits after a word": lambda r: f"cell: 617555{digits(r, 4)}",
        "ten digits alone": lambda r: f"617555{digits(r, 4)}",
    },
    "card": {
        "dots": lambda r: plain_card(r).replace("-", ".").replace(" ", "."),
        "underscores": lambda r: plain_card(r).replace("-", "_").replace(" ", "_"),
        "named": lambda r: f"Visa{plain_card(r)}",
    },
    "iban": {
        "small letters": lambda r: plain_iban(r).lower(),
        "hyphens": lambda r: plain_iban(r).replace(" ", "-"),
        "named": lambda r: f"IBAN:{plain_iban(r)}",
    },
    "ssn": {
        "spaces": lambda r: plain_ssn(r).replace("-", " "),
        "named": lambda r: f"SSN {plain_ssn(r).replace('-', '')}",
    },
    "ip": {
        "port": lambda r: f"{plain_v4(r)}:8080",
        "in version 6": lambda r: f"::ffff:{plain_v4(r)}",
        "long version 6": lambda r: "2600:" + ":".join(some(r, "123abc", 4) for _ in range(7)),
        "log": lambda r: f"{plain_v4(r)} - - [18/Mar/2024:14:30:00]",
    },
    "key": {
        "Slack": lambda r: f"xoxb-{digits(r, 12)}-{some(r, LETTERS, 24)}",
        "Google": lambda r: f"AIza{some(r, LETTERS, 35)}",
        "bearer": lambda r: f"Authorization: Bearer {some(r, LETTERS, 40)}",
        "secret of AWS": lambda r: f"aws_secret_access_key={some(r, LETTERS + '/+', 40)}",
        "password": lambda r: f"password: {some(r, LETTERS, 12)}",
    },
    "credentials": {
        "no user": lambda r: f"redis://:{some(r, LETTERS, 12)}@cache.{r.choice(HOSTS)}.com:6379",
        "no password": lambda r: f"https://{some(r, LETTERS, 20)}@{r.choice(HOSTS)}.com/a.git",
    },
}  # fmt: skip


def unseen_texts(seed: int, each: int) -> list[Planted]:
    """As ``personal_texts``, of the other forms and without what only looks like them."""
    rng = random.Random(seed)
    texts = []
    for kind, makers in UNSEEN.items():
        for form, maker in makers.items():
            for _ in range(each):
                value = maker(rng)
                text = rng.choice(CARRIERS).format(value)
                texts.append(Planted(text, kind, value, form))
    return texts
