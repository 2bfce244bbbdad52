"""CloudEvents 1.0 on the wire: what is written comes back unchanged; what comes in is a message or bad input."""

from __future__ import annotations

import base64
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dumbwaiter.envelope import (
    ATTRIBUTE_NAMES,
    STRUCTURED_CONTENT_TYPE,
    format_time,
    from_attributes,
    from_structured,
    parse_time,
    to_attributes,
    to_structured,
)
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import PREDICTION_REQUESTED, Message

RESERVED = {*ATTRIBUTE_NAMES.values(), "specversion", "data"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
MAYBE = st.none() | TEXT
# Microseconds are what the wire keeps; further away a float no longer holds them.
TIMES = st.none() | st.integers(-62_135_596_800_000_000, 253_402_300_799_000_000).map(lambda micros: micros / 1e6)
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=50),
    id=TEXT,
    content_type=MAYBE.filter(lambda text: text is None or not text.lower().startswith(STRUCTURED_CONTENT_TYPE)),
    type=TEXT,
    source=TEXT,
    subject=MAYBE,
    time=TIMES,
    data_ref=MAYBE,
    trace_parent=MAYBE,
    correlation_id=MAYBE,
    reply_to=MAYBE,
    deadline=TIMES,
    priority=st.integers(),
    tenant=MAYBE,
    idempotency_key=MAYBE,
    extensions=st.dictionaries(
        st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda n: n not in RESERVED), TEXT
    ),
)


def structured(**event):
    return from_structured(json.dumps(event).encode())


def complaint(name, value):
    with pytest.raises(BadInputError) as caught:
        from_attributes({name: value}, b"")
    return str(caught.value)


def assert_same(found: Message, sent: Message):
    for field in Message.__struct_fields__:
        expected = getattr(sent, field)
        if field in {"time", "deadline"} and expected is not None:
            # Half a microsecond, or what a double holds of a time so far away.
            expected = pytest.approx(expected, abs=1e-6, rel=1e-15)
        assert getattr(found, field) == expected, field


@given(MESSAGES)
def test_any_message_comes_back_from_binary_mode(message):
    assert_same(from_attributes(to_attributes(message), message.body), message)


@given(MESSAGES)
def test_any_message_comes_back_from_structured_mode(message):
    assert_same(from_structured(to_structured(message)), message)


@given(MESSAGES)
def test_structured_mode_is_recognised_by_its_content_type(message):
    found = from_attributes({"Content-Type": f"{STRUCTURED_CONTENT_TYPE}; charset=UTF-8"}, to_structured(message))
    assert_same(found, message)


@given(MESSAGES, st.sampled_from(["ce-", "ce_", "cloudEvents:", "cloudEvents_", "CE-", ""]))
def test_attributes_are_read_under_every_protocols_prefix(message, prefix):
    attributes = {prefix + name: value for name, value in to_attributes(message).items()}
    assert_same(from_attributes(attributes, message.body), message)


def test_a_bare_body_is_a_valid_request_with_defaults():
    message = from_attributes({}, b"\xff\x00")
    assert (message.body, message.type, message.source) == (b"\xff\x00", PREDICTION_REQUESTED, "/dumbwaiter")
    assert message.id != from_attributes({}, b"").id
    assert (message.content_type, message.deadline, message.reply_to, message.priority) == (None, None, None, 0)
    assert from_attributes({}, b"", fallback_id="row-7").id == "row-7"


def test_what_a_message_has_not_is_not_written():
    assert to_attributes(Message(id="1")) == {
        "specversion": "1.0",
        "id": "1",
        "source": "/dumbwaiter",
        "type": PREDICTION_REQUESTED,
    }
    assert json.loads(to_structured(Message(id="1"))) == to_attributes(Message(id="1"))


def test_an_attribute_without_a_value_counts_as_absent():
    assert from_attributes({"subject": None, "deadline": None, "specversion": "1.0"}, b"").extensions == {}


@pytest.mark.parametrize("event", [{"id": ""}, {}])
def test_a_message_without_an_id_gets_one_of_its_own_in_both_modes(event):
    data = json.dumps(event).encode()
    headers = {"content-type": STRUCTURED_CONTENT_TYPE}
    assert from_attributes(headers, data, fallback_id="row-7").id == "row-7"
    assert from_attributes(event, b"", fallback_id="row-7").id == "row-7"
    assert from_structured(data).id != from_structured(data).id != ""


def test_an_extension_cannot_take_the_place_of_an_attribute():
    message = Message(id="mine", extensions={"id": "yours", "specversion": "9", "colour": "red"})
    assert (to_attributes(message)["id"], to_attributes(message)["specversion"]) == ("mine", "1.0")
    assert from_structured(to_structured(message)).extensions == {"colour": "red"}


@pytest.mark.parametrize(
    ("content_type", "data", "body"),
    [
        (None, {"a": [1, None]}, b'{"a":[1,null]}'),
        (None, "text", b'"text"'),
        ("application/json", "text", b'"text"'),
        ("application/json; charset=utf-8", "text", b'"text"'),
        ("Application/Geo+JSON", "text", b'"text"'),
        ("text/plain", "ä", "ä".encode()),
        ("application/xml", "<a/>", b"<a/>"),
        ("text/plain", 5, b"5"),
        ("text/x-notjson", "text", b"text"),
        ("application/json", 12345678901234567890123, b"12345678901234567890123"),
        ("application/json", False, b"false"),
    ],
)
def test_inline_data_becomes_the_body_that_its_content_type_means(content_type, data, body):
    message = structured(datacontenttype=content_type, data=data)
    assert (message.body, message.content_type) == (body, content_type or "application/json")


def test_data_that_is_no_json_comes_in_base64():
    encoded = base64.b64encode(b"\xff\xd8").decode()
    assert structured(data_base64=encoded, datacontenttype="image/jpeg").body == b"\xff\xd8"
    assert structured(data_base64=encoded).content_type is None
    assert structured(data=None).body == b""


@pytest.mark.parametrize("wrong", ["a", "????", "ä", 5, ["YQ=="], {}])
def test_wrong_base64_is_named(wrong):
    with pytest.raises(BadInputError, match=r"data_base64 is not base64: .+"):
        structured(data_base64=wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"a": %s}' % (b"1" * 5000),
        b"[]",
        b"5",
        b"{",
        b'{"a": 1e400}',
        b'"\xff"',
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_says_so(data):
    with pytest.raises(BadInputError, match=r"not a CloudEvents JSON object: .+"):
        from_structured(data)


@pytest.mark.parametrize("name", ["datacontenttype", "ce-datacontenttype", "DataContentType", "Content-Type"])
def test_an_event_inside_an_event_is_refused_however_it_is_written(name):
    inner = json.dumps({"id": "inner"}).encode()
    event = {name: STRUCTURED_CONTENT_TYPE.upper(), "data_base64": base64.b64encode(inner).decode()}
    with pytest.raises(BadInputError, match="inside another one"):
        structured(**event)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01z", 1.0),
        ("1970-01-01t01:00:01+01:00", 1.0),
        ("1970-01-01T00:00:01.250Z", 1.25),
        ("1970-01-01T00:00:01", 1.0),
        ("1.5", 1.5),
        (2, 2.0),
        (2.5, 2.5),
        ("9999-12-31T23:59:59Z", 253_402_300_799.0),
        ("0001-01-01T00:00:00Z", -62_135_596_800.0),
    ],
)
def test_times_are_rfc_3339_or_unix_seconds(written, seconds):
    assert parse_time("deadline", written) == seconds


@given(st.floats(-62_135_596_800, 253_402_300_799))
def test_every_time_that_can_be_read_can_be_written(seconds):
    text = format_time(seconds)
    assert text.endswith("Z")
    assert parse_time("time", text) == pytest.approx(seconds, abs=1e-6, rel=1e-15)


@pytest.mark.parametrize("name", ["time", "deadline", "ce-deadline"])
@pytest.mark.parametrize(
    "wrong",
    [
        "soon",
        "",
        "nan",
        "-inf",
        "1e300",
        "253402300800",
        10**400,
        -1e11,
        "0001-01-01T00:00:00+23:59",
        True,
        [1],
        "\ud800",
    ],
)
def test_a_wrong_time_is_named_with_what_would_be_right(name, wrong):
    said = complaint(name, wrong)
    assert said.startswith(f"CloudEvents attribute {name.removeprefix('ce-')} must ")
    assert any(words in said for words in ("RFC 3339 time or Unix seconds", "years 1 to 9999", "text, a number"))


@pytest.mark.parametrize("wrong", ["high", "", "1.5", 1.5, "nan", "9" * 5000, True, [], {"a": 1}])
def test_a_wrong_priority_is_named(wrong):
    said = complaint("priority", wrong)
    assert said.startswith("CloudEvents attribute priority must be ")
    assert len(said) < 200, "a sender cannot fill our logs"


def test_priorities_are_whole_numbers_of_either_sign():
    assert [from_attributes({"priority": value}, b"").priority for value in ("-3", " 7 ", 5)] == [-3, 7, 5]


def test_numbers_and_truths_become_the_text_that_cloudevents_gives_them():
    message = structured(subject=5, flag=True, other=False, ratio=0.5, id=7)
    assert (message.subject, message.id) == ("5", "7")
    assert message.extensions == {"flag": "true", "other": "false", "ratio": "0.5"}


@pytest.mark.parametrize("name", ["id", "source", "subject", "replyto", "datacontenttype", "colour"])
@pytest.mark.parametrize("wrong", [[], {}, ["a"]])
def test_an_attribute_that_is_no_plain_value_is_named(name, wrong):
    with pytest.raises(BadInputError, match=rf"attribute {name} must be text, .*not a (list|dict)"):
        structured(**{name: wrong})


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
NAMES = st.sampled_from(sorted(RESERVED)) | st.sampled_from(
    ["ce-time", "Content-Type", "cloudEvents:id", "data_base64"]
)
CONTENT_TYPES = st.fixed_dictionaries({}, optional={"content-type": st.sampled_from([STRUCTURED_CONTENT_TYPE, "x"])})


@given(CONTENT_TYPES, st.dictionaries(NAMES | st.text(), ANYTHING, max_size=5), st.binary())
@example({}, {"deadline": "10000-01-01T00:00:00Z"}, b"")
@example({}, {"time": 10**5000}, b"")
@example({"content-type": STRUCTURED_CONTENT_TYPE}, {}, b'{"data": ' + b"[" * 300 + b"]" * 300 + b"}")
@example({"content-type": STRUCTURED_CONTENT_TYPE}, {}, b'{"id": "\\ud800"}')
@example({"content-type": STRUCTURED_CONTENT_TYPE}, {}, b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}")
def test_whatever_the_attributes_and_the_body_it_is_a_message_or_bad_input(content_type, attributes, body):
    try:
        message = from_attributes({**attributes, **content_type}, body)
    except BadInputError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(to_attributes(message), dict), "what was read can be written again"


@given(st.dictionaries(NAMES | st.text(st.characters(exclude_categories=["Cs"])), ANYTHING, max_size=5))
def test_whatever_the_json_object_it_is_a_message_or_bad_input(event):
    data = json.dumps(event, default=lambda value: value.hex()).encode()
    try:
        message = from_structured(data)
    except BadInputError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(to_attributes(message), dict), "what was read can be written again"


@given(st.integers(1, 3000))
def test_nesting_of_any_depth_is_a_message_or_bad_input(depth):
    for name in ("data", "colour", "time"):
        try:
            from_structured(b'{"%s": ' % name.encode() + b"[" * depth + b"]" * depth + b"}")
        except BadInputError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_what_the_producer_says_beside_the_body_wins_over_what_the_body_says_of_itself():
    event = (
        b'{"id": "forged", "replyto": "another", "subject": "inner", "data": "soup", "datacontenttype": "text/plain"}'
    )
    outside = {"datacontenttype": STRUCTURED_CONTENT_TYPE, "id": "mine", "replyto": "my inbox"}
    message = from_attributes(outside, event)
    assert (message.id, message.reply_to, message.subject) == ("mine", "my inbox", "inner")
    assert (message.body, message.content_type) == (b"soup", "text/plain")


@pytest.mark.parametrize("deadline", [math.nan, math.inf, 1e300, -1e300])
def test_a_deadline_that_no_calendar_has_is_refused_by_its_sender(deadline):
    with pytest.raises(BadInputError, match="is no moment that a message can carry"):
        to_attributes(Message(deadline=deadline))
