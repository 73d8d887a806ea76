"""Tells which language a text is in, where that is plain, and whether an answer is in another.

By script where that tells (Cyrillic, Greek, Han and so on), else by small words that are frequent
in one language and rare in the others. What is short, mixed or in code is of no language: it is
better to say nothing than to accuse who was asked to translate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final

READ_MAX: Final = 2_000
"""Characters of a text that are looked at."""
NAMED_WITHIN: Final = 10_000
"""Characters at either end of a text in which a language may be named."""
WORDS_MIN: Final = 4
"""So many small words of a language must be there."""
_LETTERS_MIN: Final = 12
_MOSTLY: Final = 0.7
_AHEAD: Final = 2.0
"""So many times as many as of any other language."""

_SMALL_WORDS: Final = {
    "en": "the and of is are was were with that this which from have has it you they would can",
    "de": "der die das und ist sind nicht mit ein eine einen dem den auf für von wird sich oder",
    "fr": "le la les et est sont une des dans pour que qui pas avec sur ce cette vous il elle",
    "es": "el los las y es son una del para que con por como está pero más este se lo usted",
    "it": "il gli che è sono una della per con non di come questo più nel anche alla lo suo",
    "pt": "o os as e é são uma para que com não do da em por como mais você ao seu",
    "nl": "de het een en is zijn van niet met dat voor op ook wordt deze die naar bij maar",
    "pl": "i w nie na jest się z że do to jak dla są przez który ale od czy może",
}
_WORDS: Final = {name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()}
_SCRIPTS: Final = {
    "CYRILLIC": "ru",
    "GREEK": "el",
    "HEBREW": "he",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "THAI": "th",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
}
_STEMS: Final = (
    "translat übersetz tradu vertaal tłumacz перевед перевод 翻译 翻譯 翻訳 번역 language sprache "
    "langue idioma lingua язык 语言 語言 言語 언어 "
    "english englisch anglais ingles inglés inglês angielsk английск 英语 英文 英語 영어 "
    "german deutsch allemand alema alemá tedesc niemieck немецк 德语 德文 德語 ドイツ "
    "french französ franc franç frances francusk французск 法语 法文 法語 フランス "
    "spanish spanisch espag espan españ spagnol hiszpa испанск 西班牙 スペイン "
    "italian portugu dutch niederländ polish polski russian russisch russe русск 俄语 俄文 俄語 "
    "chinese chines 中文 汉语 japan 日本 korean 한국 arab hebr hindi greek griech thai latin"
)
_NAMED: Final = tuple(_STEMS.split())
_CODE: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD: Final = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """Return a language's code, None where it is not plain."""
    text = _CODE.sub(" ", text)[:READ_MAX].lower()
    letters = [each for each in text if each.isalpha()]
    if len(letters) < _LETTERS_MIN:
        # A character of some scripts is a word.
        return _by_script(letters, 4) if letters and not letters[0].isascii() else None
    return _by_script(letters, 1) or _by_words(_WORD.findall(text))


def names_a_language(text: str) -> bool:
    """True where a text speaks of languages, so that an answer may be in any; of a long one its
    begin and its end say so, where what is asked for stands."""
    if len(text) > 2 * NAMED_WITHIN:
        text = f"{text[:NAMED_WITHIN]} {text[-NAMED_WITHIN:]}"
    text = text.lower()
    # One after the other takes a twentieth of the time of one pattern of them all.
    return any(each in text for each in _NAMED)


class Asked:
    """What was asked: its languages are looked for once, and only where an answer's is plain."""

    def __init__(self, texts: Callable[[], Iterable[str]]) -> None:
        self._texts = texts

    def is_in_another(self, answer: str) -> bool:
        """True where an answer is plainly in a language that nothing that was asked is in."""
        told = language_of(answer)
        return told is not None and bool(self._spoken) and told not in self._spoken

    @cached_property
    def _spoken(self) -> frozenset[str | None]:
        """Of each text; of none where an answer may be in any."""
        texts = list(self._texts())
        if not texts or any(map(names_a_language, texts)):
            return frozenset()
        spoken = [language_of(each) for each in texts]
        return frozenset() if spoken[-1] is None else frozenset(spoken)


def _by_script(letters: list[str], least: int) -> str | None:
    counts = Counter(_script(each) for each in letters if not each.isascii())
    counts.pop(None, None)
    if not counts:
        return None
    if counts["ja"] and counts["ja"] + counts["zh"] >= _MOSTLY * len(letters):
        return "ja"
    language, count = counts.most_common(1)[0]
    return language if count >= max(_MOSTLY * len(letters), least) else None


def _script(letter: str) -> str | None:
    return _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0])


def _by_words(words: list[str]) -> str | None:
    counts = {name: sum(each in known for each in words) for name, known in _WORDS.items()}
    (best, most), (_, next_most) = sorted(counts.items(), key=lambda each: -each[1])[:2]
    plain = most >= WORDS_MIN and most >= _AHEAD * next_most and most >= len(words) / 12
    return best if plain else None
