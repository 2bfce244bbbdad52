# ruff: noqa: RUF001 - letters that look like others are the point
"""URLs that callers may name to get at what they should not. PORT stands for that of a listener on loopback.

NAMES are what the resolver of the tests answers for the names in them.
"""

from __future__ import annotations

_INNER = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.254"]
_INNER += ["192.168.0.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.192"]
_INNER += ["168.63.129.16", "198.18.0.1", "198.19.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"]
_INNER += ["239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1", "0.1.2.3"]

_V6 = [
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "0000:0000:0000:0000:0000:0000:0000:0001",
    "::0001",
    "0::1",
    "::2",
    "::127.0.0.1",
]
_V6 += ["::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:7F00:0001", "0:0:0:0:0:ffff:127.0.0.1"]
_V6 += ["::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::ffff:0:127.0.0.1", "::ffff:0.0.0.0"]
_V6 += ["64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b::a00:1", "64:ff9b:1::127.0.0.1"]
_V6 += ["2002:7f00:1::", "2002:7f00:0001::1", "2002:a9fe:a9fe::", "2002:a00:1::1", "2002:c0a8:1::1"]
_V6 += ["2001:0:7f00:1::", "2001::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "2001:10::1", "2001:2::1"]
_V6 += ["fe80::1", "fe80::7f00:1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd12:3456:789a::1", "ff02::1"]
_V6 += [
    "ff0e::1",
    "100::1",
    "5f00::1",
    "3fff::1",
    "4000::1",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
]

_NUMBERS = [
    "2130706433",
    "0x7f000001",
    "0x7F000001",
    "017700000001",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.00.00.01",
    "00177.0.0.1",
]
_NUMBERS += ["127.1", "127.0.1", "0x7f.1", "0177.1", "0x7f.0.1", "127.0x0.0x0.1", "127.000.000.001", "127.0.0.01"]
_NUMBERS += ["0127.0.0.1", "0", "0x0", "00", "0.0", "0.0.0", "000.000.000.000", "4294967295"]
_NUMBERS += [
    "4294967296",
    "6425673729",
    "0x100000000",
    "0x17f000001",
    "256.256.256.256",
    "127.0.0.257",
    "127.0.0.1.1",
    "2852039166",
]
_NUMBERS += [
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "025177524776",
    "169.254.43518",
    "0251.0376.0251.0376",
    "3232235521",
    "0xc0a80001",
    "192.168.1",
]
_NUMBERS += ["10.1", "0xa.1", "012.1", "1", "127", "0x7f", "0x", "0x."]
_NUMBERS += ["127.0.0.1e0", "127.0.0.0x1", "127..0.0.1", ".127.0.0.1"]

GROUPS: dict[str, list[str]] = {
    "plain addresses": [f"http://{one}:PORT/" for one in _INNER],
    "IPv6 addresses, and IPv4 within them": [f"http://[{one}]:PORT/" for one in _V6],
    "IPv4 in other numbers": [f"http://{host}:PORT/" for host in _NUMBERS],
    "dots at the end": [
        f"http://{host}:PORT/"
        for host in ("127.0.0.1.", "127.0.0.1..", "localhost.", "localhost..", "2130706433.", "127.1.", "0x7f.1.")
    ],
    "digits, letters and dots of other scripts": [
        f"http://{host}:PORT/"
        for host in (
            "１２７.0.0.1",
            "１２７．０．０．１",
            "127。0。0。1",
            "127｡0｡0｡1",
            "①②⑦.⓪.⓪.①",
            "⑫7.0.0.1",
            "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
            "𝟙𝟚𝟟.0.0.1",
            "¹²⁷.0.0.1",
            "１２７.1",
            "２１３０７０６４３３",
            "0ｘ7f000001",
            "١٢٧.0.0.1",
            "१२७.०.०.१",
            "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
            "ｌｏｃａｌｈｏｓｔ",
            "𝓵𝓸𝓬𝓪𝓵𝓱𝓸𝓼𝓽",
            "LOCALHOST",
            "loc\u00adalhost",
            "local\u200bhost",
            "local\u2060host",
            "127.0.0.\u200b1",
            "127\u00ad.0.0.1",
            "ſocalhost",
            "localhoſt",
            "xn--localhost-.local",
            "inside.ｔｅｓｔ",
            "\u202e1.0.0.721",
        )
    ],
    "names that lead within": [
        f"http://{host}:PORT/"
        for host in (
            "localhost",
            "app.localhost",
            "LocalHost",
            "loopback.test",
            "loopback6.test",
            "mapped.test",
            "metadata.test",
            "metadata.google.internal",
            "printer.local",
            "private.test",
            "cgnat.test",
            "both.test",
            "both-turned.test",
            "zero.test",
            "127.0.0.1.nip.test",
            "inside.test.",
            "INSIDE.TEST",
            "_inside.test",
        )
    ],
    "user names and passwords": [
        "http://user@127.0.0.1:PORT/",
        "http://user:pass@127.0.0.1:PORT/",
        "http://public.test@127.0.0.1:PORT/",
        "http://public.test:80@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT@public.test/",
        "http://127.0.0.1:PORT#@public.test/",
        "http://127.0.0.1:PORT?@public.test/",
        "http://127.0.0.1:PORT/@public.test/",
        "http://public.test%40127.0.0.1:PORT/",
        "http://public.test#@127.0.0.1:PORT/@",
        "http://@127.0.0.1:PORT/",
        "http://:@127.0.0.1:PORT/",
        "http://a@b@127.0.0.1:PORT/",
        "http://public.test&@127.0.0.1:PORT#@public.test/",
        "http://public.test;@127.0.0.1:PORT/",
        "http://[::1]@127.0.0.1:PORT/",
    ],
    "escapes in the host": [
        f"http://{host}:PORT/"
        for host in (
            "%31%32%37.0.0.1",
            "127%2e0%2e0%2e1",
            "%6c%6f%63%61%6c%68%6f%73%74",
            "localhost%00.public.test",
            "localhost%2f.public.test",
            "127.0.0.1%23.public.test",
            "127.0.0.1%20",
            "%E2%91%A0.0.0.1",
            "%5b::1%5d",
            "%",
        )
    ],
    "spaces, control characters and backslashes": [
        "http://127.0.0.1 :PORT/",
        " http://127.0.0.1:PORT/",
        "http://127.0.0.1:PORT/ ",
        "http://public.test 127.0.0.1:PORT/",
        "http://127.0.0.1\t:PORT/",
        "http://127.0.0.1\n:PORT/",
        "http://127.0.0.1\r\nHost: public.test:PORT/",
        "http://127.0.0.1\x00.public.test:PORT/",
        "http://127.0.0.1\x0b:PORT/",
        "http://127.0.0.1\x7f:PORT/",
        "http://127.0.0.1\x85:PORT/",
        "http://127.0.0.1\xa0:PORT/",
        "http://127.0.0.1\u2028:PORT/",
        "http://127.0.0.1\u3000:PORT/",
        "ht\ntp://127.0.0.1:PORT/",
        "http:/\t/127.0.0.1:PORT/",
        "http://public.test\\@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT\\@public.test/",
        "http:\\\\127.0.0.1:PORT/",
        "http:/\\127.0.0.1:PORT/",
        "http://\\127.0.0.1:PORT/",
        "http://127.0.0.1:PORT/\r\nX-Injected: 1",
        "http://127.0.0.1:PORT/?a=b HTTP/1.1",
    ],
    "brackets and zones": [
        "http://[::1%25lo]:PORT/",
        "http://[::1%lo]:PORT/",
        "http://[fe80::1%25eth0]:PORT/",
        "http://[::1]extra:PORT/",
        "http://extra[::1]:PORT/",
        "http://[[::1]]:PORT/",
        "http://[::1:PORT/",
        "http://::1]:PORT/",
        "http://::1:PORT/",
        "http://[127.0.0.1]:PORT/",
        "http://[localhost]:PORT/",
        "http://[]:PORT/",
        "http://[v1.127.0.0.1]:PORT/",
        "http://[::ffff:127.1]:PORT/",
        "http://[::ffff:0177.0.0.1]:PORT/",
        "http://[::ffff:0x7f000001]:PORT/",
        "http://[::１]:PORT/",
        "http://[0:0:0:0:0:0:0:0:1]:PORT/",
        "http://[::1].public.test:PORT/",
    ],
    "ports": [
        "http://127.0.0.1:/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:99999999/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:+PORT/",
        "http://127.0.0.1:PORT:PORT/",
        "http://127.0.0.1:0xPORT/",
        "http://127.0.0.1:００PORT/",
        "http://public.test:80:127.0.0.1:PORT/",
        "http://public.test:PORT@127.0.0.1/",
        "http://127.0.0.1:PORTpublic.test/",
    ],
    "other schemes and forms": [
        "",
        "http",
        "http:",
        "http:/",
        "http://",
        "http:///",
        "http:///127.0.0.1:PORT/",
        "http:////127.0.0.1:PORT/",
        "http:127.0.0.1:PORT/",
        "http:/127.0.0.1:PORT/",
        "//127.0.0.1:PORT/",
        "127.0.0.1:PORT/",
        "localhost:PORT",
        "/etc/passwd",
        "://127.0.0.1:PORT/",
        "http//127.0.0.1:PORT/",
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://127.0.0.1:PORT/",
        "gopher://127.0.0.1:PORT/_GET%20/",
        "dict://127.0.0.1:PORT/info",
        "ldap://127.0.0.1:PORT/",
        "tftp://127.0.0.1:PORT/x",
        "jar:http://127.0.0.1:PORT/!/",
        "url:http://127.0.0.1:PORT/",
        "unix:/var/run/docker.sock",
        "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "ws://127.0.0.1:PORT/",
        "HTTP://127.0.0.1:PORT/",
        "hTtP://LOCALHOST:PORT/",
        "https://127.0.0.1:PORT/",
        "https://[::1]:PORT/",
        "https://localhost:PORT/",
        "ｈttp://127.0.0.1:PORT/",
        "http：//127.0.0.1:PORT/",
        "http://127.0.0.1:PORT/%",
        "http://127.0.0.1:PORT/%zz",
        "http://127.0.0.1:PORT/\ud800",
        "http://-127.0.0.1:PORT/",
        "http://127.0.0.1,public.test:PORT/",
        "http://127.0.0.1;public.test:PORT/",
        "http://{127.0.0.1}:PORT/",
        "http://$HOME:PORT/",
        "http://*:PORT/",
        f"http://{'a' * 64}.test:PORT/",
        f"http://{'a.' * 127}test:PORT/",
        f"http://127.0.0.1:PORT/{'a' * 9000}",
    ],
}

URLS = [(trick, url) for trick, urls in GROUPS.items() for url in urls]

NAMES: dict[str, list[str]] = {
    "localhost": ["::1", "127.0.0.1"],
    "app.localhost": ["127.0.0.1"],
    "loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "metadata.google.internal": ["169.254.169.254"],
    "printer.local": ["192.168.1.9"],
    "private.test": ["10.0.0.1"],
    "cgnat.test": ["100.64.0.1"],
    "both.test": ["93.184.215.14", "127.0.0.1"],
    "both-turned.test": ["127.0.0.1", "93.184.215.14"],
    "zero.test": ["0.0.0.0"],
    "127.0.0.1.nip.test": ["127.0.0.1"],
    "inside.test": ["127.0.0.1"],
    "_inside.test": ["127.0.0.1"],
}
