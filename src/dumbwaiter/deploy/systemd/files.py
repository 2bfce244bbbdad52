"""The files for systemd, by name. Pure."""

from __future__ import annotations

from dumbwaiter.deploy import requirements, vendors
from dumbwaiter.deploy.folders import GIT_IGNORES, SECRETS
from dumbwaiter.deploy.hiding import of_model
from dumbwaiter.deploy.moving import SIGNERS, of_signers, settings_tree
from dumbwaiter.deploy.systemd.project import RUNTIME, SETTINGS, STATE, USER, VARIABLES, SystemdProject
from dumbwaiter.deploy.systemd.units import TARGET, units
from dumbwaiter.deploy.toml import document
from dumbwaiter.urls import shown


def files(project: SystemdProject) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot run so."""
    return {
        **units(project),
        "dumbwaiter.toml": document(settings_tree(project.settings, project.place)),
        "dumbwaiter.sysusers": f'u {USER} - "dumbwaiter" {STATE}\n',
        "requirements.txt": requirements.document(project.requirements),
        ".gitignore": GIT_IGNORES,
        "README.md": _readme(project),
    }


_SECRET = f"""
The broker's URL has a password, so it is not rendered: write `broker = "..."` as the first line of
`{SETTINGS}`, which only root and this user can read.
"""
_USE = f"""
## Use

```sh
systemctl list-dependencies {TARGET}
journalctl --unit 'dumbwaiter-*' --follow
sudo systemctl restart {TARGET}                # all of it; what waits is kept
```

One more worker of a model that does not scale is one more instance: `dumbwaiter-worker-NAME@2`. Each process gives
signs of life in `{RUNTIME}/UNIT.heartbeat`, for `dumbwaiter probe`.
"""


def _hidden(project: SystemdProject) -> str:
    """What to write into files before the start."""
    found = [(SIGNERS, each) for each in of_signers(project.hidden)]
    for model in project.models:
        found += [(model.name, each) for each in of_model(project.hidden, model.name)]
    lines = [f"- `{VARIABLES % name}`: a line `{each.variable}=...` (`{each.setting}`)\n" for name, each in found]
    head = "\nWhat may be secret and is not rendered belongs into files that only root can read (mode 600):\n\n"
    return head + "".join(lines) if lines else ""


def _local(project: SystemdProject) -> str:
    names = (f"`pip wheel --no-deps --wheel-dir wheels FOLDER-OF-{name}`" for name in project.requirements.local)
    return ", ".join(names) or "nothing here"


def _installed(project: SystemdProject) -> str:
    """The commands that install the packages."""
    found = project.requirements
    files = [*([f"{project.place.project}/{found.as_is}"] if found.as_is else []), "requirements.txt"]
    where = "".join(f" --extra-index-url {index}" for index in vendors.indexes(found))
    install = f"sudo {project.prefix}/bin/python -m pip install --find-links wheels{where}"
    return "".join(f"{install} --requirement {file}\n" for file in files)


def _readme(project: SystemdProject) -> str:
    prefix, app = project.prefix, project.place.project
    hidden = shown(project.settings.broker) != project.settings.broker
    keys = f"""
# Callers need an API key, and without one the gateway does not start. Git leaves that folder out:
mkdir -p -m 700 {SECRETS}
sudo -u {USER} env DUMBWAITER_CONFIG={SETTINGS} {project.program} keys create --name first > {SECRETS}/key.txt"""
    packages = project.requirements
    return f"""# dumbwaiter as services of systemd

Rendered by `dumbwaiter deploy systemd`. Change `dumbwaiter.toml` and render again. For a machine, use drop-ins
(`systemctl edit`): a file that was edited by hand is not overwritten, and so not renewed either. systemd 247 or later.

Packages: {len(packages.pins)}, from {packages.source}.

## Install

What no index has goes into `wheels/` before: {_local(project)}. In this folder:

```sh
# The project and its environment:
sudo mkdir -p {app} && sudo cp -rT FOLDER-OF-THE-PROJECT {app}
sudo rm -rf {app}/dumbwaiter.toml {app}/.dumbwaiter {app}/.venv
sudo ln -s {STATE} {app}/.dumbwaiter      # where weights that are fetched are kept
sudo python3 -m venv {prefix}
{_installed(project)}
# The services:
sudo install -D -m 644 dumbwaiter.sysusers /etc/sysusers.d/dumbwaiter.conf && sudo systemd-sysusers
sudo install -D -m 640 -g {USER} dumbwaiter.toml {SETTINGS}
sudo install -m 644 *.service *.target /etc/systemd/system/
sudo systemctl daemon-reload{keys if project.settings.gateway.needs_keys else ""}
sudo systemctl enable --now {TARGET}
```
{_SECRET if hidden else ""}{_hidden(project)}{_USE}"""
