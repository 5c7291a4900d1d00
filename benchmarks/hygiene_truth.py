"""Texts whose personal data and near duplicates are known, because they were planted."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import NamedTuple

CARRIERS = [
    "Please write me a polite reply to this customer: {} has not answered since Monday.",
    "Summarise: The meeting was moved to 14:30 on 2024-03-18. Details under {}. Bring 3 copies.",
    "Contact: {}",
    "Translate into French: You can find it here: {}, thanks!",
    "{} is what the form says, and the total is $1,249.50.",
    "I noted ({}) on page 12 of the file v2.3.1 - is it right?\nAnswer in one sentence.",
    "<td>{}</td>",
    'Fix this JSON: {{"value": "{}", "count": 3}}',
]
PHONE_CARRIERS = [
    "Please call {} before 5 pm on 2024-03-18.",
    "My number is {}, I am there from 9:00 to 12:00.",
    "Contact: {}",
    "Tel. {} (office)",
    "Reply to this: hi, {} here, ring me back, order 883-2210",
    "Jane Miller, 12 Long Street, {}",
    '{{"phone": "{}", "count": 3}}',
]
NAMES = [
    "anna", "ben", "chloe", "david", "elif", "fatima", "george", "hana", "ivan", "jose", "kim",
    "lars", "mei", "noor", "olga",
]  # fmt: skip
SURNAMES = [
    "miller", "smith", "garcia", "chen", "okafor", "nowak", "rossi", "dubois", "tanaka", "larsen",
    "silva", "kaya",
]  # fmt: skip
HOSTS = [
    "gmail", "mailbox", "posteo", "outlook", "uni-bonn", "northwind", "acme-corp", "lab42", "post",
    "mycompany",
]  # fmt: skip
ENDS = [
    "com", "org", "net", "de", "co.uk", "fr", "io", "edu", "it", "com.br",
]  # fmt: skip


class Planted(NamedTuple):
    """A text, and what stands in it; kind "" for what only looks like personal data."""

    text: str
    kind: str
    value: str
    form: str  # which generator made it


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def hexadecimal(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789abcdef", k=count))


def n(rng: random.Random, *span: int) -> int:
    return rng.randrange(*span)


def check_digit(body: str) -> str:
    """The digit that makes a number pass the check of cards; written apart from what is tested."""
    total = 0
    for place, sign in enumerate(reversed(body)):
        value = int(sign) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card(rng: random.Random) -> str:
    prefix, length = rng.choice([("4", 16), ("51", 16), ("54", 16), ("37", 15), ("6011", 16)])
    body = prefix + digits(rng, length - 1 - len(prefix))
    number = body + check_digit(body)
    separator = rng.choice(["", " ", "-"])
    sizes = [4, 6, 5] if length == 15 else [4, 4, 4, 4]
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return separator.join(parts)


def iban(rng: random.Random) -> str:
    country, shape = rng.choice(
        [("DE", "d" * 18), ("GB", "aaaa" + "d" * 14), ("FR", "d" * 10 + "x" * 11 + "dd"),
         ("NL", "aaaa" + "d" * 10), ("ES", "d" * 20), ("CH", "d" * 17), ("NO", "d" * 11)]
    )  # fmt: skip
    signs = {"d": string.digits, "a": string.ascii_uppercase, "x": string.digits + "ABCDEFGH"}
    body = "".join(rng.choice(signs[one]) for one in shape)
    numbers = "".join(str(int(one, 36)) for one in body + country + "00")
    whole = f"{country}{98 - int(numbers) % 97:02}{body}"
    spaced = " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))
    return rng.choice([whole, spaced])


def email(rng: random.Random) -> str:
    first, last = rng.choice(NAMES), rng.choice(SURNAMES)
    local = rng.choice([first, f"{first}.{last}", f"{first}_{last}{rng.randrange(99)}",
                        f"{first[0]}{last}", f"{first}+news", f"{first}-{last}"])  # fmt: skip
    return f"{local}@{rng.choice(HOSTS)}.{rng.choice(ENDS)}"


def unicode_email(rng: random.Random) -> str:
    local = rng.choice(["jürgen", "zoë.müller", "иван", "李明", "josé_gonzález", "søren"])
    return f"{local}@{rng.choice(['bücher.de', 'почта.рф', '例え.jp', 'mail.de', 'exämple.org'])}"


def hidden_email(rng: random.Random) -> str:
    local, host = rng.choice(NAMES), rng.choice(HOSTS)
    if rng.random() < 0.5:
        local = f"{local}.{rng.choice(SURNAMES)}"
    at, dot = rng.choice(
        [
            (" at ", " dot "),
            (" [at] ", " [dot] "),
            ("(at)", "."),
            (" AT ", " DOT "),
            ("[at]", "[dot]"),
        ]
    )
    return f"{local}{at}{host}{dot}{rng.choice(['com', 'org', 'de', 'net'])}"


def american_phone(rng: random.Random) -> str:
    # Codes of areas that exist; exchange and line as the numbering plan allows.
    area = rng.choice(["202", "212", "312", "415", "617", "713", "808", "914"])
    exchange, line = str(rng.randrange(201, 999)), digits(rng, 4)
    if exchange[1:] == "11":
        exchange = "234"
    return rng.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "1-{}-{}-{}", "{} {} {}"]).format(
        area, exchange, line
    )


def international_phone(rng: random.Random) -> str:
    two = digits(rng, 2)
    return rng.choice([
        f"+1 {american_phone(rng).removeprefix('1-')}",
        f"+44 20 7{digits(rng, 3)} {digits(rng, 4)}",
        f"+44 77{two}{digits(rng, 6)}",
        f"+49 30 {rng.randrange(2, 9)}{digits(rng, 6)}",
        f"+49 (0)171 {rng.randrange(2, 9)}{digits(rng, 6)}",
        f"+33 6 {two} {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)}",
        f"0033 6{two}{digits(rng, 6)}",
        f"+91 98{digits(rng, 3)} {digits(rng, 5)}",
        f"+34 6{digits(rng, 8)}",
        f"+39 06 69{digits(rng, 6)}",
    ])  # fmt: skip


def national_phone(rng: random.Random) -> str:
    two = digits(rng, 2)
    return rng.choice([
        f"020 7{digits(rng, 3)} {digits(rng, 4)}",
        f"07{rng.choice('45789')}{two} {digits(rng, 6)}",
        f"030 {rng.randrange(2, 9)}{digits(rng, 6)}",
        f"0171/{rng.randrange(2, 9)}{digits(rng, 6)}",
        f"06 {two} {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)}",
        f"01.4{rng.randrange(2, 9)}.{two}.{digits(rng, 2)}.{digits(rng, 2)}",
    ])  # fmt: skip


def ssn(rng: random.Random) -> str:
    area = rng.choice([number for number in range(1, 900) if number != 666])
    return f"{area:03}-{rng.randrange(1, 100):02}-{rng.randrange(1, 10000):04}"


def public_v4(rng: random.Random) -> str:
    first = rng.choice([23, 34, 52, 81, 93, 104, 141, 151, 185, 212])
    return f"{first}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def public_v6(rng: random.Random) -> str:
    groups = [rng.choice(["2a00", "2600", "2001:4860"]), f"{rng.randrange(1, 65536):x}"]
    ends = [f"{rng.randrange(1, 65536):x}" for _ in range(rng.randrange(1, 4))]
    return ":".join(groups) + "::" + ":".join(ends)


def api_key(rng: random.Random) -> str:
    letters = string.ascii_letters + string.digits
    return rng.choice([
        "AKIA" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=16)),
        "ghp_" + "".join(rng.choices(letters, k=36)),
        "sk-" + "".join(rng.choices(letters, k=48)),
        "hf_" + "".join(rng.choices(string.ascii_letters, k=34)),
    ])  # fmt: skip


def login(rng: random.Random) -> str:
    scheme = rng.choice(["postgres", "https", "ftp", "mongodb+srv"])
    secret = "".join(rng.choices(string.ascii_letters + string.digits + "!$_", k=10))
    return f"{scheme}://{rng.choice(NAMES)}:{secret}@db.{rng.choice(HOSTS)}.com/main"


Maker = Callable[[random.Random], str]
PLANTED: dict[str, list[Maker]] = {
    "email": [email, unicode_email, hidden_email],
    "phone": [american_phone, international_phone, national_phone],
    "card": [card],
    "iban": [iban],
    "ssn": [ssn],
    "ip": [public_v4, public_v6],
    "key": [api_key],
    "credentials": [login],
}
DISTRACTORS: dict[str, Maker] = {
    "order number": lambda r: f"order {digits(r, 3)}-{digits(r, 7)}-{digits(r, 7)}",
    "order number, bare": lambda r: digits(r, r.choice([8, 9, 10, 12])),
    "invoice": lambda r: f"INV-{n(r, 2015, 2026)}-{digits(r, 6)}",
    "number of 16 digits": lambda r: str(n(r, 1, 10)) + digits(r, 15),
    "version": lambda r: f"version {n(r, 20)}.{n(r, 20)}.{n(r, 30)}.{n(r, 9)}",
    "browser": lambda r: f"Chrome/{n(r, 90, 130)}.0.{n(r, 9999)}.{n(r, 200)}",
    "package": lambda r: f"{r.choice(HOSTS)}@{n(r, 9)}.{n(r, 20)}.{n(r, 20)}",
    "private address": lambda r: f"192.168.{n(r, 256)}.{n(r, 256)}",
    "date": lambda r: f"{n(r, 1900, 2030)}-{n(r, 1, 13):02}-{n(r, 1, 29):02}",
    "German date": lambda r: f"{n(r, 1, 29):02}.{n(r, 1, 13):02}.{n(r, 1900, 2030)}",
    "time": lambda r: f"2024-03-18T{n(r, 24):02}:{n(r, 60):02}:{n(r, 60):02}",
    "years": lambda r: f"{n(r, 1900, 1950)}-{n(r, 1950, 2020)}",
    "ISBN-13": lambda r: f"978-{n(r, 9)}-{digits(r, 2)}-{digits(r, 6)}-{n(r, 9)}",
    "ISBN-10": lambda r: f"{n(r, 9)}-{digits(r, 3)}-{digits(r, 5)}-{n(r, 9)}",
    "sum": lambda r: f"{n(r, 9999)} + {n(r, 99999)} - {n(r, 999)} = {n(r, 99999)}",
    "decimal": lambda r: f"{n(r, 9)}.{digits(r, 12)}",
    "millions": lambda r: f"{n(r, 1, 999):,} {digits(r, 3)} {digits(r, 3)}",
    "list of numbers": lambda r: " ".join(str(n(r, 10, 999)) for _ in range(5)),
    "coordinates": lambda r: f"{n(r, 90)}.{digits(r, 6)}, -{n(r, 180)}.{digits(r, 6)}",
    "hash": lambda r: hexadecimal(r, 40),
    "uuid": lambda r: "-".join(hexadecimal(r, count) for count in (8, 4, 4, 4, 12)),
    "MAC address": lambda r: ":".join(hexadecimal(r, 2) for _ in range(6)),
    "code": lambda r: f"x = a @ b.T; std::vector<int> a{n(r, 9)}; @app.route('/x'); i[{n(r, 99)}]",
    "repository": lambda r: f"git@github.com:{r.choice(NAMES)}/{r.choice(HOSTS)}.git",
    "image": lambda r: f"icon-{digits(r, 2)}@2x.png",
    "place of work": lambda r: f"who works at {r.choice(HOSTS)} dot com",
    "shop": lambda r: f"look at {r.choice(HOSTS)}.com for details",
    "handle": lambda r: f"@{r.choice(NAMES)}_{digits(r, 2)}",
    "address": lambda r: f"https://{r.choice(HOSTS)}.com/a/{digits(r, 9)}?id={digits(r, 10)}",
    "tracking number": lambda r: f"1Z{digits(r, 3)}AA1{digits(r, 10)}",
    "score": lambda r: f"{n(r, 9)}-{n(r, 9)}, {n(r, 99)}-{n(r, 99)}",
    "paper": lambda r: f"arXiv:{n(r, 1501, 2512)}.{digits(r, 5)}, doi 10.1145/{digits(r, 7)}",
}  # fmt: skip


def personal_texts(seed: int, each: int) -> list[Planted]:
    """Texts with one planted piece each, and as many with one that only looks like it.

    Args:
        seed: of all choices.
        each: texts for each generator.
    """
    rng = random.Random(seed)
    texts = []
    for kind, makers in PLANTED.items():
        for maker in makers:
            for _ in range(each):
                value = maker(rng)
                carrier = rng.choice(PHONE_CARRIERS if kind == "phone" else CARRIERS)
                texts.append(Planted(carrier.format(value), kind, value, maker.__name__))
    for form, make in DISTRACTORS.items():
        for _ in range(each):
            value = make(rng)
            texts.append(Planted(rng.choice(CARRIERS).format(value), "", value, form))
    rng.shuffle(texts)
    return texts
