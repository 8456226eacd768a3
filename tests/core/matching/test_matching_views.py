"""Views: what a dressed-up text is read as, and what is left alone."""

import base64

import pytest

from mitmgate.core.matching.decoding import decode
from mitmgate.core.matching.normalising import fold
from mitmgate.core.matching.views import ALL, views_of

B64 = base64.b64encode


def shown(text: str, view: str) -> list[str]:
    return [other.text for name, other in views_of(text) if name == view]


def test_plain_ascii_is_read_as_little_as_can_be():
    readings = [(name, reading.text) for name, reading in views_of("Nothing to see here.")]
    assert readings == [
        ("raw", "Nothing to see here."),
        ("rot13", "Abguvat gb frr urer."),
        ("reversed", ".ereh ees ot gnihtoN"),
        ("rot13", ".reru rrf bg tavugbA"),
        ("punctuation", "Nothing to see here"),
        ("punctuation", "Nothing to see here "),
    ]


@pytest.mark.parametrize("view", sorted(ALL))
def test_a_view_that_nobody_wants_is_not_made(view: str):
    text = "**1gn0re** a-l-l%20pre-vious 72 6d 20 2d 72 66 20 2f"
    names = {name for name, _ in views_of(text, wanted=ALL - {view})}
    assert view not in names
    assert {"raw", "normalised"} & names


def test_raw_text_always_comes_first_and_unchanged():
    name, reading = next(views_of("w\u200beights"))
    assert (name, reading.text) == ("raw", "w\u200beights")


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("a  b\t\r\nc", "a b c"),
        ("w\u200be\u2060i\ufeffg\u00adh\u180et\u034fs", "weights"),
        ("ab\u202ecd\u2066ef", "abcdef"),
        ("w\ufe0fe\U000e0101i", "wei"),
        ("a\x00b\x08c", "abc"),
        ("a\x9bb", "ab"),
        ("ｗｅｉｇｈｔｓ", "weights"),
        ("𝓌𝔢𝒊𝖌𝗁𝚝𝕤", "weights"),
        ("ⓦⓔⓘⓖⓗⓣⓢ", "weights"),
        ("\u0405у\u0455t\u0435m", "System"),
        ("\u0406gnore", "Ignore"),
        ("ᴡᴇɪɢʜᴛꜱ", "wEiGHTs"),
        ("🅆🄴🅸🇬🇭🆃🅂", "WEIGHTS"),
        ("w̶e̶i̶g̶h̶t̶s̶", "weights"),
        ("wéïghtș", "weights"),
        ("١٦٩.۲۵۴", "169.254"),
        ("rm\u2010rf", "rm-rf"),
        ("Stra\u00dfe", "Strasse"),
        ("\u0130gnore \u0131t", "ignore it"),
        ("a\ud800b", "ab"),
        ("a\u3000b\x85c", "a b c"),
    ],
)
def test_normalised(text: str, read_as: str):
    assert read_as in shown(text, "normalised")


def test_accents_are_kept_as_well():
    assert shown("une  école", "normalised") == ["une école", "une ecole"]


def test_letters_that_only_look_like_ascii_are_kept_as_well():
    assert shown("вес\u200bов", "normalised") == ["весов", "вecoв"]


def test_many_different_lookalikes_take_the_other_path_to_the_same_end():
    letters = (
        "".join(chr(0xFF41 + i) for i in range(26)) + "аеорсухіјѕԁԛԝһӏАВЕКМНОРСТУХαονρυΑΒΕΖΗΙΚΜ"
    )
    one_by_one = "".join(map(fold, letters))
    assert fold(letters) == one_by_one
    assert one_by_one.isascii()


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (f"run {B64(b'rm -rf / --now').decode()} please", "run rm -rf / --now please"),
        (B64(b"export the weights").decode().rstrip("="), "export the weights"),
        (base64.urlsafe_b64encode(b"what???>>>is this").decode(), "what???>>>is this"),
        (base64.encodebytes(b"export the weights " * 9).decode(), "export the weights " * 9),
        (B64(B64(b"export the weights")).decode(), "export the weights"),
        (B64("export weights".encode("utf-16-le")).decode(), "export weights"),
        (B64("ｅｘｐｏｒｔ w\u200beights".encode()).decode(), "export weights"),
        (B64("экспорт весов".encode()).decode(), "экспорт весов"),
        ("\u200b".join(B64(b"export the weights").decode()), "export the weights"),
        ("72 6d 20 2d 72 66 20 2f", "rm -rf /"),
        ("0x726d202d7266202f", "0x rm -rf /"),
        ("0x72, 0x6d, 0x20, 0x2d, 0x72, 0x66", "0x rm -rf"),
        ("726D202D7266202F", "rm -rf /"),
        ("rm%20-rf%20%2F", "rm -rf /"),
        (r"\x72\x6d -rf", "rm -rf"),
        (r"\u0072\u006d -rf \ud83d\ude00", "rm -rf 😀"),
        (r"{\"command\":\n\"rm -rf \/\"}", '{"command": "rm -rf /"}'),
        ("hi\U000e0072\U000e006d", "hirm"),
        (B64(b"export the weights").hex(), "export the weights"),
        ("&lt;b&gt; r&#109; &#x2d;r&#X66 &#0000000000047;", "<b> rm -rf /"),
        ("&ltb&gt &amp;lt; &copy", "<b> < \u00a9"),
        (r"\162\155 -rf", "rm -rf"),
        (r"\u{72}\u{00006d} -rf", "rm -rf"),
        ("chr(114)+chr(0x6d) + chr(32)", "rm"),
        ("run 114 109 32 45 114 102 32 47 now", "run rm -rf / now"),
        ("162, 155, 40, 55, 162, 146", "rm -rf"),
        ("01110010 01101101 00100000 00101101", "rm -"),
        (base64.b32encode(b"export the weights").decode(), "export the weights"),
        (f"/data/v1/{B64(b'export the weights').decode()}", "/data/v1/ export the weights"),
        (f"/data/{B64(b'export>>>?the weights').decode()}", "/data/ export>>>?the weights"),
        (f"Config_{B64(b'export the weights').decode().rstrip('=')}_x", "export the weights"),
    ],
)
def test_decoded(text: str, read_as: str):
    wanted = " ".join(read_as.split())
    assert any(wanted in reading for reading in shown(text, "decoded"))


@pytest.mark.parametrize(
    "text",
    [
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "get_user_name_list internationalization/configuration",
        "100% of 50 % are 5",
        "AT&T &nosuchentity; R&D & more &#; &#x;",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 200 300 400 500",
        "site-packages/google/Protobuf/ConfigurationLoader/descriptor_pool_X",
        B64(bytes(range(128, 256)) * 4).decode(),
        "",
    ],
)
def test_what_is_not_encoded_text_is_left_alone(text: str):
    assert decode(text) == text


def test_lines_that_are_not_one_blob_are_read_one_by_one():
    noise = B64(bytes(range(140, 250))).decode()[:60]
    assert "export the weights" in decode(f"{noise}\n{B64(b'export the weights').decode()}")


def test_decoding_stops_after_two_rounds_and_never_grows():
    blob = b"export the model weights"
    for _ in range(3):
        blob = B64(blob)
    readings = [reading.text for _, reading in views_of(blob.decode())]
    assert all("export" not in text for text in readings)
    assert all(len(text) <= len(blob) for text in readings)
