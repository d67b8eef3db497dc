"""Texts on which tokenizers disagree, written down or made from a seed."""

# ruff: noqa: RUF001 (characters that are mistaken for others are what this is about)

from __future__ import annotations

import random
from collections.abc import Sequence

#: Each is one kind of difficulty; names say which.
HARD = {
    "empty": ["", " ", "\t\n\r ", "\u3000", "\u00a0", "\u200b", "\ufeff", "\x00", "\u0301"],
    "accents": [
        "café Ångström naïve façade", "cafe\u0301 A\u030angstro\u0308m", "ẞ Straße STRASSE ß",
        "İstanbul Iğdır ıi", "Ǆ ǅ ǆ Ĳ ŉ ſ", "Łódź Øresund đ Ħ ŧ", "Đặng Nguyễn Trãi",
        "ŵ ẁ ṩ ǖ ǘ",
    ],
    "combining": [
        "a\u0300\u0301\u0302\u0327b", "q\u0307\u0323 q\u0323\u0307",
        "\u0301start e\u0301nd\u0301",
        "हिन्दी में क्या है", "ประเทศไทย", "בְּרֵאשִׁית", "مُحَمَّد", "가\u302e나\u302f",
        "e\u20dd x\u0489",
    ],
    "cjk": [
        "漢字とかなカナ", "漢a字b 漢 字", "中文，标点。「引号」", "한국어 텍스트",
        "ｆｕｌｌｗｉｄｔｈ ＡＢＣ１２３",
        "ﾊﾝｶｸ", "\U00020000\U0002f800㐀豈", "㍿ ㊤ ㎏", "ㄱㄴㄷ ᄀ\u1161\u11a8",
        "注音ㄅㄆㄇ", "ゞ々〆〇〡",
    ],
    "emoji": [
        "nice 🙂👍", "🙂word🙂", "👩\u200d👩\u200d👧\u200d👦 family", "👍🏽 ok", "🇩🇪🇫🇷",
        "❤\ufe0f ♥ ☺ ☹\ufe0e",
        "1\ufe0f\u20e3 #\ufe0f\u20e3", "moon☾light a☺b", "🫠🫨🩷",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
    "control": [
        "tab\tnew\nline\rreturn", "nul\x00bell\x07esc\x1b[0m", "a\x0bb\x0cc\x1cd\x85e",
        "del\x7f",
        "\u2028line\u2029paragraph", "pri\ue000vate \U000f0000", "\ufffdreplaced\ufffc",
        "\uffff a",
        "unassigned \u0378 \U000e1000 \U00050000",
        "noncharacters \U000ffffe \U0010ffff", "left\u202dright\u202c\u2066x\u2069",
    ],
    "zero width": [
        "zero\u200bwidth\u200cnon\u200djoiner\u2060word", "\ufeffbom in\ufeffside",
        "soft\u00adhyphen",
        "\u180emongolian\u180e", "\u2062\u2063invisible",
        "thin\u2009hair\u200anarrow\u202fmath\u205f.",
    ],
    "long words": [
        "x" * 99, "x" * 100, "x" * 101, "x" * 5000, "é" * 100, "e\u0301" * 100, "漢" * 300,
        "🙂" * 101, "-" * 300, "word " * 400, "pneumonoultramicroscopicsilicovolcanoconiosis",
        "Donaudampfschifffahrtsgesellschaftskapitän", "a" * 100 + "\u0301",
        "ab" * 50 + "\u200b",
    ],
    "mixed scripts": [
        "Привет world γειά σου ΣΑΣ ς", "pаypаl Αpple", "שלום مرحبا hello", "Ωμέγα ΐ ΰ Ϊ",
        "Ѐ Ѝ ё й",
        "𝐁𝐨𝐥𝐝 𝔉𝔯𝔞𝔨 𝟘𝟙", "ქართული Ა", "ᎣᏏᏲ ꭰ", "ԱՐԵՎ և", "𐐀𐐨 𞤀𞤢", "ﬁne ﬂow ﬃ", "İ̇ i̇",
    ],
    "urls": [
        "https://user:pw@example.org:8080/a/b.html?q=1&r=%20#frag", "www.example.com/~me",
        "first.last+tag@mail.example.co.uk", "C:\\dir\\file_name.txt",
        "@user #hash_tag $VAR ${x}",
        "<b>bold</b> &amp; &#39;", "a_b-c.d/e|f~g^h`i{j}k[l](m)*n+o=p",
    ],
    "numbers": [
        "1,234.56 −7 +8 ±9", "1e-10 0x1F 3/4 ½ ² ₂ Ⅷ ①", "٣٤٥ ३४५ ４５", "€5 £6 ¥7 ₿8 9% 10‰",
        "12:34:56 2024-02-30", "+49 (0)30 1234-567", "1'000'000", "007", "9" * 150,
    ],
    "punctuation": [
        "don’t “quote” ‘single’ «guil» „low“", "…—–‒―‐‑", "¿Qué? ¡Hola!", "a.b.c...d!!!??",
        "·•‣⁃※†‡§¶",
        "⟨x⟩ ⸨y⸩ ﴾z﴿", "a\u055ab\u060cc\u0964d\u3001e", "′″‴ ‰ № ™ © ® ° ", "¬ ¦ ¨ ¯ ´ ¸ × ÷",
    ],
    "case": ["ALL CAPS", "MiXeD", "ÀÉÎÕÜ", "ΆΈΉ", "ЁЙ", "ǅ", "Ⓐⓐ", "ⅣⅠ", "K Å Ω"],
}  # fmt: skip

#: From where random texts take their characters, as first and last code point.
_BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x52F),
    (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFB00, 0xFFFF), (0x10000, 0x1F9FF), (0x20000, 0x2FA1F),
]  # fmt: skip


def hard_texts(words: Sequence[str], added: Sequence[str], count: int = 2000) -> list[str]:
    """Return texts that a second implementation of a tokenizer is likely to get wrong.

    Args:
        words: Tokens of its vocabulary, out of which random texts are glued.
        added: Its added tokens: in any case, inside words, torn apart.
        count: How many random texts; always the same ones for the same words.

    Returns:
        Those written down in ``HARD``, those with added tokens, and the random ones.
    """
    chance = random.Random(0)
    texts = [text for kind in HARD.values() for text in kind]
    for token in added:
        texts += [
            token, f"a{token}b", f"{token} {token}", f"{token}{token}", token.lower(),
            token.upper(), f"{token[:2]}\u200b{token[2:]}", f"{token[:2]}\u0301{token[2:]}",
            f"{token[:-1]}", f"  {token}  x", f"\u3000{token}\n",
        ]  # fmt: skip
    return texts + [_random_text(chance, words, added) for _ in range(count)]


def _random_text(chance: random.Random, words: Sequence[str], added: Sequence[str]) -> str:
    parts = []
    for _ in range(chance.randint(1, 30)):
        kind = chance.random()
        if kind < 0.4:
            parts.append(_character(chance))
        elif kind < 0.9 or not added:
            parts.append(chance.choice(words).removeprefix("##"))
        else:
            parts.append(chance.choice(added))
        parts.append(chance.choice(["", "", " "]))
    return "".join(parts)


def _character(chance: random.Random) -> str:
    while True:
        character = chr(chance.randint(*chance.choice(_BLOCKS)))
        if not "\ud800" <= character <= "\udfff":
            return character
