"""`tuningfork up` and `tuningfork models prepare`."""

import argparse

from pydantic import ValidationError

from deploy.embedded.home import Home
from deploy.embedded.settings import UpSettings
from deploy.embedded.up import base_of, say, up


def run_up(options: argparse.Namespace) -> int:
    return up(settings_from(options))


def run_prepare(options: argparse.Namespace) -> int:
    settings = settings_from(options)
    model = base_of(settings, Home(settings.home))
    say(f"{model.name} is ready in {model.folder}")
    return 0


def settings_from(options: argparse.Namespace) -> UpSettings:
    """The environment, and what the command line says over it."""
    given = {
        name: value for name, value in vars(options).items() if name in UpSettings.model_fields and value
    }
    try:
        return UpSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"TUNINGFORK_{str(first['loc'][0]).upper()}: {first['msg']}") from error
