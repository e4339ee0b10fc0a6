"""Addresses of servers, and the secrets in them."""

import pytest

from infer.errors import UserError
from infer.generate.address import Address, without_secrets


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8000/v1", Address("http://127.0.0.1:8000/v1")),
        ("https://host/v1/", Address("https://host/v1")),
        ("http://[::1]:80/v1", Address("http://[::1]:80/v1")),
        ("http://under_score:80", Address("http://under_score:80")),
        ("https://exämple.de/v1", Address("https://exämple.de/v1")),
        ("http://user:K%2FY@host/v1", Address("http://host/v1", ("user", "K/Y"))),
        ("http://KEY@host/v1", Address("http://host/v1", ("KEY", ""))),
        ("http://host/v1/?key=KEY&b=1", Address("http://host/v1", None, "key=KEY&b=1")),
    ],
)
def test_an_address_and_its_secrets(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:8000/v1",
        "ftp://host/v1",
        "ftp://user:KEY@host/v1?key=KEY",
        "http://",
        "http:///v1",
        "http://a b/v1",
        "http://host/v 1",
        "http://host:99999/v1",
        "http://host:0/v1",
        "http://host:abc/v1",
        "http://[::1/v1",
        "http://a..b/v1",
        "http://" + "a" * 70 + ".test/v1",
        "http://h\x1b[31m/v1",
        "http://%zz/v1",
        "http://user:KEY/1@host/v1",
        "user:KEY@host/v1",
    ],
)
def test_a_malformed_address_is_refused_without_its_secrets(text: str) -> None:
    with pytest.raises(UserError, match=r"is no server's address: .*: write one such as http") as error:
        Address.parse(text)
    assert "KEY" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--base-url=http://user:KEY@host/v1", "--base-url=http://***@host/v1"),
        ("min:http://u:KEY@host/v1?key=KEY,HTTPS://b/v1?KEY", "min:http://***@host/v1?***,HTTPS://b/v1?***"),
        ("no KEY here: a@b?c=d", "no KEY here: a@b?c=d"),
    ],
)
def test_addresses_in_a_text_are_shown_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_servers_words_do_not_repeat_what_it_was_sent_in_secret() -> None:
    address = Address.parse("http://user:pass%20word@host/v1?key=KEY1&x=a")
    said = address.hide("no user 'user' with 'pass word' and KEY1 (key=KEY1&x=a), sk-1234 is a key", "sk-1234")
    assert said == "no user 'user' with '***' and *** (***), *** is a key"
