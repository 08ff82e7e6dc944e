"""Settings of webhooks: what cannot work stops the start."""

import pytest

from llmproxy.config.load import ConfigError, load


def test_hosts_are_words() -> None:
    settings = load({}, {"LLMPROXY_WEBHOOK_HOSTS": "a.example, b.example:8443"}).settings
    assert settings.webhook_hosts == ("a.example", "b.example:8443")


def test_a_secret_that_cannot_be_decoded() -> None:
    with pytest.raises(ConfigError, match=r"webhook_secret = \(hidden\) .* base64 is wanted") as told:
        load({}, {"LLMPROXY_WEBHOOK_SECRET": "whsec_notbase64!"})
    assert "notbase64" not in str(told.value)


def test_a_url_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"webhook_url = .* no http:// or https:// URL"):
        load({}, {"LLMPROXY_WEBHOOK_URL": "hooks.example.com"})
