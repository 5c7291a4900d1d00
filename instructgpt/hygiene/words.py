"""Texts as numbers: the words of each, and of so many words in a row, as hashes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Languages that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese. Each of
# their characters is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_WORD_OR_SIGN = re.compile(rf"{_WORD.pattern}|[-+*/=<>^%&|~$€£]")
_MOST_KNOWN = 500_000
_PRIME = np.uint64(0x9E3779B97F4A7C15)


class _Numbers(dict[str, int]):
    """A number for each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        number = zlib.crc32(word.encode("utf-8", "surrogatepass")) + 1
        self[word] = number
        return number


_numbers = _Numbers()


class Flat(NamedTuple):
    """Numbers of several texts, one behind the other."""

    values: np.ndarray  # [all] uint64
    starts: np.ndarray  # [texts] int64
    counts: np.ndarray  # [texts] int64


def words(text: str, signs: bool = True) -> list[str]:
    """The words of a text, in small letters, without punctuation but for signs that calculate.

    A text without any is taken character by character.

    Args:
        text: any.
        signs: whether these signs are words.

    Examples:
        >>> words("What's 3 - 4, René?"), words("你好 ok"), words("?!")
        (['what', 's', '3', '-', '4', 'rené'], ['你', '好', 'ok'], ['?', '!'])
    """
    pattern = _WORD_OR_SIGN if signs else _WORD
    return pattern.findall(text.casefold()) or list("".join(text.split()))


def numbers(texts: Sequence[list[str]]) -> Flat:
    """A number for each word, the same in every process; 0 is none.

    Args:
        texts: words of each text.
    """
    counts = np.array([len(one) for one in texts], np.int64)
    values = np.array([_numbers[word] for one in texts for word in one], np.uint64)
    return Flat(values, np.cumsum(counts) - counts, counts)


def ngrams(texts: Flat, size: int) -> Flat:
    """A hash of every so many words in a row; of a shorter text, of all its words.

    Args:
        texts: numbers of the words of each text.
        size: words.
    """
    lengths = np.maximum(texts.counts, size)
    begins = np.cumsum(lengths) - lengths
    padded = np.zeros(lengths.sum(), np.uint64)  # what is missing in a short text is 0, no word
    padded[_places(begins, texts.counts)] = texts.values
    hashed = mixed(padded)
    count = max(0, len(padded) - size + 1)
    sums = np.zeros(count, np.uint64)
    for place in range(size):
        sums *= _PRIME
        sums += hashed[place : place + count]
    counts = lengths - size + 1
    return Flat(mixed(sums[_places(begins, counts)]), np.cumsum(counts) - counts, counts)


def _places(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """So many places from each beginning on, one behind the other."""
    return np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)


def mixed(values: np.ndarray, salt: int = 1) -> np.ndarray:
    """Other 64 bits for each value, by the finaliser of splitmix64 (Steele et al. 2014).

    Args:
        values: uint64.
        salt: another salt gives others.
    """
    values = values + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
