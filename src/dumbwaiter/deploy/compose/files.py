"""The files beside the compose file, by name. Pure."""

from __future__ import annotations

from dumbwaiter.deploy import places, yaml
from dumbwaiter.deploy.compose import services
from dumbwaiter.deploy.compose.brokers import server_of
from dumbwaiter.deploy.compose.project import ComposeProject
from dumbwaiter.deploy.folders import GIT_IGNORES, SECRETS
from dumbwaiter.deploy.hiding import Hidden, of_model
from dumbwaiter.deploy.moving import SIGNERS, of_signers, settings_tree
from dumbwaiter.deploy.toml import document

SETTINGS = "settings.toml"


def files(project: ComposeProject) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot be run so."""
    tree = settings_tree(project.settings, project.place)
    tree.pop("broker", None)  # prepare.sh writes it, with its password
    return {
        "compose.yaml": yaml.document(services.compose_file(project), services.notes(project)),
        SETTINGS: document(tree),
        "prepare.sh": _prepare(project),
        ".gitignore": GIT_IGNORES,
        "README.md": _readme(project),
    }


def _prepare(project: ComposeProject) -> str:
    """A script that makes the secrets. A password is never an argument of a process, which others could see."""
    server = server_of(project)
    asked = "".join(map(_asked, sorted({file for file, _ in _to_write(project)})))
    return f"""\
# Makes secrets/: a password for the broker, unless there is one, and the two files that have it. Run it as root, for
# each file belongs to the user of the container that reads it:    sudo sh prepare.sh
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
{asked}[ -s secrets/password ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \\n' > secrets/password
password=$(cat secrets/password)

# Written over, not replaced: a container that runs sees the file that it was given.
printf '{server.settings}' "$password" > secrets/broker.conf
{{
    printf 'broker = "{server.url}"\\n' "$password"
    cat {SETTINGS}
}} > secrets/dumbwaiter.toml
chmod 400 secrets/broker.conf secrets/dumbwaiter.toml
chown {server.user} secrets/broker.conf
chown {places.USER}:{places.USER} secrets/dumbwaiter.toml
"""


def _asked(file: str) -> str:
    return f"[ -s {file} ] || {{ echo 'first write {file}: README.md says what' >&2; exit 1; }}\n"


def _to_write(project: ComposeProject) -> list[tuple[str, Hidden]]:
    """Each file of variables, with what belongs into it."""
    found = [(services.variables_file(SIGNERS), each) for each in of_signers(project.hidden)]
    for model in project.models:
        found += [(services.variables_file(model.name), each) for each in of_model(project.hidden, model.name)]
    return found


def _hidden(project: ComposeProject) -> str:
    """What to write into files before the start."""
    lines = [f"- `{file}`: a line `{each.variable}=...` (`{each.setting}`)" for file, each in _to_write(project)]
    if not lines:
        return ""
    return (
        "\nBefore, write what may be secret and is not rendered into files that only root can read. It becomes"
        " variables\nof the containers that need it, and `docker inspect` shows them:\n\n" + "\n".join(lines) + "\n"
    )


def _readme(project: ComposeProject) -> str:
    extra = {"redis": "redis", "rabbitmq": "rabbitmq"}[project.broker]
    gpu = any(project.gets_gpu(model) for model in project.models)
    needs = ", and NVIDIA's container toolkit (`nvidia-ctk runtime configure --runtime=docker`)" if gpu else ""
    keys = project.settings.gateway.auth != "off"
    create = (
        "# Callers need an API key, and without one the gateway does not start:\n"
        f"docker compose run --rm courier keys create --name first | sudo tee {SECRETS}/key.txt > /dev/null\n"
    )
    return f"""# dumbwaiter on one machine, in containers

Rendered by `dumbwaiter deploy compose`. Change `dumbwaiter.toml` and render again, or put what differs into a
`compose.override.yaml`: a file that was edited by hand is not overwritten, and so not renewed either.

It needs Docker with Compose 2.24 or later{needs}.
{_hidden(project)}
## Start

```sh
# In the project's folder: the image {project.image}, with the broker's client. See its README.md.
dumbwaiter deploy image --extra {extra}
docker build --file image/Dockerfile --tag {project.image} .

# In this folder:
sudo sh prepare.sh
{create if keys else ""}docker compose up --detach --wait
```

After a change of settings: render, `sudo sh prepare.sh`, `docker compose up --detach --force-recreate`.

## What is kept

The volume `broker` has what waits, `data` what is large or kept, and what was measured. `docker compose down` leaves
both; `down --volumes` deletes them. The passwords are in `{SECRETS}/`, and in no variable of a container. That
folder is root's; git and `dumbwaiter deploy image` leave it out.
"""
