"""The files for systemd, by name. Pure."""

from __future__ import annotations

from dumbwaiter.deploy.hiding import of_model
from dumbwaiter.deploy.kubernetes.toml import document
from dumbwaiter.deploy.moving import SIGNERS, of_signers, settings_tree
from dumbwaiter.deploy.systemd.project import RUNTIME, SETTINGS, STATE, USER, VARIABLES, SystemdProject
from dumbwaiter.deploy.systemd.units import TARGET, units
from dumbwaiter.urls import shown


def files(project: SystemdProject) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot run so."""
    return {
        **units(project),
        "dumbwaiter.toml": document(settings_tree(project.settings, project.place)),
        "dumbwaiter.sysusers": f'u {USER} - "dumbwaiter" {STATE}\n',
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


def _readme(project: SystemdProject) -> str:
    prefix, app = project.prefix, project.place.project
    hidden = shown(project.settings.broker) != project.settings.broker
    keys = f"""
# Callers need an API key, and without one the gateway does not start:
sudo -u {USER} env DUMBWAITER_CONFIG={SETTINGS} {project.program} keys create --name first > key.txt"""
    return f"""# dumbwaiter as services of systemd

Rendered by `dumbwaiter deploy systemd`. Change `dumbwaiter.toml` and render again. For a machine, use drop-ins
(`systemctl edit`): a file that was edited by hand is not overwritten, and so not renewed either. systemd 247 or later.

## Install

```sh
# The environment and the project:
sudo python3 -m venv {prefix}
sudo {prefix}/bin/python -m pip install ...            # dumbwaiter with its extras, and what the models need
sudo mkdir -p {app} && sudo cp -rT FOLDER-OF-THE-PROJECT {app}
sudo rm -rf {app}/dumbwaiter.toml {app}/.dumbwaiter {app}/.venv
sudo ln -s {STATE} {app}/.dumbwaiter      # where weights that are fetched are kept

# In this folder:
sudo install -D -m 644 dumbwaiter.sysusers /etc/sysusers.d/dumbwaiter.conf && sudo systemd-sysusers
sudo install -D -m 640 -g {USER} dumbwaiter.toml {SETTINGS}
sudo install -m 644 *.service *.target /etc/systemd/system/
sudo systemctl daemon-reload{keys if project.settings.gateway.needs_keys else ""}
sudo systemctl enable --now {TARGET}
```
{_SECRET if hidden else ""}{_hidden(project)}{_USE}"""
