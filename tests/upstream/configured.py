"""Settings that do not depend on the environment the tests run in."""

from llmproxy.config.settings import Settings


def configured(**values: object) -> Settings:
    return Settings.model_validate(values)
