"""What may be reached is decided by what a URL or address means, however it is written."""

from __future__ import annotations

import ipaddress

import pytest
from hostile_urls import URLS
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import ConfigError, ForbiddenUrlError
from dumbwaiter.outbound.guard import AddressPolicy, Target

ANY = AddressPolicy(OutboundSettings())
PLAIN = AddressPolicy(OutboundSettings(allow_http=True))

# The registries of IANA, as of 2025: first and last address of each range, and its neighbours where those are public.
SPECIAL_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
]
SPECIAL_V6 = [
    "::/128",
    "::1/128",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2400:cb00::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


def allowed(address, policy=ANY):
    try:
        policy.check_address(ipaddress.ip_address(address))
    except ForbiddenUrlError:
        return False
    return True


@pytest.mark.parametrize("text", [*SPECIAL_V4, *SPECIAL_V6])
def test_no_address_of_a_special_range_is_public(text):
    network = ipaddress.ip_network(text)
    middle = network[network.num_addresses // 2]
    assert not any(allowed(one) for one in (network[0], middle, network[-1]))


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_beside_the_special_ranges_are_public(text):
    assert allowed(text)


@given(st.ip_addresses())
def test_what_python_does_not_call_global_is_never_allowed(address):
    carried = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if allowed(address) and carried is None and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_that_carries_an_ipv4_one_is_judged_by_it(inner):
    number = int(inner)
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | number)
    nat64 = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    sixtofour = ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1)
    isatap = ipaddress.IPv6Address(0x26064700 << 96 | 0x5EFE << 32 | number)
    assert {allowed(one) for one in (mapped, nat64, sixtofour, isatap)} == {allowed(inner)}
    assert not allowed(ipaddress.IPv6Address(number))


# Why the ranges are written out: is_global of Python 3.11.7 says yes to each of these.
TOO_GLOBAL = ["192.0.0.192", "192.88.99.1", "168.63.129.16", "224.0.0.1", "239.1.1.1", "::8.8.8.8", "2002:7f00:1::"]
TOO_GLOBAL += ["64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "100:0:0:1::1", "3fff::1", "4000::1", "5f00::1", "fec0::1"]
TOO_GLOBAL += ["ff02::1", "ff0e::1"]


@pytest.mark.parametrize("text", TOO_GLOBAL)
def test_addresses_that_the_standard_library_lets_pass_are_refused(text):
    assert not allowed(text)


@pytest.mark.parametrize(("trick", "url"), URLS)
def test_no_hostile_url_passes_unless_its_host_is_a_name(trick, url):
    try:
        target = PLAIN.check_url(url.replace("PORT", "8080"))
    except ForbiddenUrlError:
        return
    assert target.address is None, f"{trick}: {target}"


def test_the_error_names_the_url_and_the_reason_and_cuts_a_long_one():
    with pytest.raises(ForbiddenUrlError) as caught:
        ANY.check_url("https://user@example.com/")
    assert caught.value.url == "https://user@example.com/"
    assert caught.value.reason.startswith("it holds a user name or password")
    with pytest.raises(ForbiddenUrlError) as caught:
        ANY.check_url("https://" + "a" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM.:/a", Target("https", "example.com", 443, "/a")),
        ("https://example.com:8443/a/b?c=d%20e#f", Target("https", "example.com", 8443, "/a/b?c=d%20e")),
        ("https://example.com?q=1", Target("https", "example.com", 443, "/?q=1")),
        ("https://bücher.example/ä?ö", Target("https", "xn--bcher-kva.example", 443, "/%C3%A4?%C3%B6")),
        ("https://xn--bcher-kva.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://a-b_c.example.com/", Target("https", "a-b_c.example.com", 443, "/")),
        ("https://3com.com/", Target("https", "3com.com", 443, "/")),
        ("https://8.8.8.8/dns", Target("https", "8.8.8.8", 443, "/dns")),
        ("https://[2606:4700:0::1111]:53/", Target("https", "2606:4700::1111", 53, "/")),
        ("https://example.com/a@b:c", Target("https", "example.com", 443, "/a@b:c")),
    ],
)
def test_an_honest_url_is_read_as_it_was_meant(url, target):
    assert ANY.check_url(url) == target
    assert ANY.check_url(target.url) == target


def test_the_place_of_a_url_is_shown_without_its_query_and_not_at_any_length():
    assert ANY.check_url("https://Hooks.example.com:53/a?token=secret#x").place == "https://hooks.example.com:53/a"
    assert ANY.check_url("https://example.com?token=secret").place == "https://example.com/"
    assert len(ANY.check_url("https://example.com/" + "a" * 5000).place) < 250


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_what_is_read_reads_the_same_again(text):
    for url in (text, f"https://{text}", f"https://{text}/x", f"https://example.com/{text}"):
        try:
            target = PLAIN.check_url(url)
        except ForbiddenUrlError:
            continue
        assert target.url.isascii()
        assert target.url.isprintable()
        assert PLAIN.check_url(target.url) == target


def test_plain_http_is_refused_unless_it_is_allowed():
    with pytest.raises(ForbiddenUrlError, match=r"its scheme must be https \(see outbound\.allow_http\)$"):
        ANY.check_url("http://example.com/")
    with pytest.raises(ForbiddenUrlError, match=r"its scheme must be https$"):
        ANY.check_url("ftp://example.com/")
    assert PLAIN.check_url("http://example.com/").port == 80


def test_an_allowed_network_may_be_reached_and_its_neighbours_may_not():
    policy = AddressPolicy(OutboundSettings(allowed_networks=["10.1.2.0/24", "fd00:1::/64"]))
    assert policy.check_url("https://10.1.2.3/").address == ipaddress.ip_address("10.1.2.3")
    assert allowed("10.1.2.255", policy)
    assert allowed("::ffff:10.1.2.3", policy)
    assert allowed("fd00:1::9", policy)
    assert not allowed("10.1.3.0", policy)
    assert not allowed("fd00:2::9", policy)
    assert not allowed("fd00:2::5efe:10.1.2.3", policy), "an allowed address within it makes no other one allowed"


def test_with_a_list_of_hosts_no_other_is_reached():
    policy = AddressPolicy(
        OutboundSettings(allowed_hosts=["hooks.example.com", "*.Example.org", "1.1.1.1", "bücher.de"])
    )
    for host in ("hooks.example.com", "HOOKS.example.com.", "a.example.org", "a.b.example.org", "1.1.1.1", "bücher.de"):
        policy.check_url(f"https://{host}/")
    for host in (
        "example.com",
        "xhooks.example.com",
        "example.org",
        "evilexample.org",
        "1.1.1.2",
        "hooks.example.com.evil.de",
    ):
        with pytest.raises(ForbiddenUrlError, match=r"outbound\.allowed_hosts"):
            policy.check_url(f"https://{host}/")


def test_a_listed_host_is_no_way_around_the_addresses():
    policy = AddressPolicy(OutboundSettings(allowed_hosts=["127.0.0.1"]))
    with pytest.raises(ForbiddenUrlError, match=r"outbound\.allowed_networks"):
        policy.check_url("https://127.0.0.1/")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            OutboundSettings(allowed_networks=["10.0.0.1/8"]),
            r"outbound\.allowed_networks: 10\.0\.0\.1/8 has .*; write 10\.0\.0\.0/8 for all of it, or 10\.0\.0\.1 ",
        ),
        (OutboundSettings(allowed_networks=["inside"]), r"outbound\.allowed_networks.*'inside'"),
        (OutboundSettings(allowed_hosts=["https://example.com"]), r"outbound\.allowed_hosts: 'https://example.com'"),
        (OutboundSettings(allowed_hosts=["*"]), r"outbound\.allowed_hosts: '\*' is no host"),
        (OutboundSettings(allowed_hosts=["https://x.com"]), r"'https://x\.com' is a URL and no host; write hooks\."),
    ],
)
def test_settings_that_name_no_network_or_host_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        AddressPolicy(settings)
