"""What the packages hold and ask for, without installing them."""

import os
import re
import subprocess

PLUGINS = {"drover-rabbitmq", "drover-consul"}


def field(deb, name):
    return subprocess.run(["dpkg-deb", "-f", deb, name], check=True, capture_output=True, text=True).stdout.strip()


def files(deb):
    listed = subprocess.run(["dpkg-deb", "-c", deb], check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[5] for line in listed if not line.startswith("d")}


def test_each_asks_for_what_it_needs(debs):
    """Who wants no RabbitMQ gets no library for it; a plugin is of the same version as its host."""
    needs = {name: {need.split(":")[0]: version for need, version in
                    re.findall(r"(?:^|, )([^ ,]+)(?: \(([^)]*)\))?", field(deb, "Depends"))} for name, deb in debs.items()}
    assert not [need for need in needs["drover"] if re.match("librabbitmq|libssl|drover", need)], needs["drover"]
    for plugin in PLUGINS:
        assert needs[plugin]["drover"] == f"= {field(debs['drover'], 'Version')}", needs[plugin]
    assert "librabbitmq4" in needs["drover-rabbitmq"] and "librabbitmq4" not in needs["drover-consul"]
    assert needs["libdrover-dev"] == {}, "headers need nothing"


def test_what_is_where(debs):
    held = {name: files(deb) for name, deb in debs.items()}
    assert set(held) == PLUGINS | {"drover", "libdrover-dev"}
    everything = [file for deb in held.values() for file in deb]
    assert len(everything) == len(set(everything)), "a file is in two packages"
    plugins = {name: {file.split("/plugins/")[1] for file in held[name] if "/plugins/" in file} for name in held}
    assert plugins == {
        "drover": {"brokers/sqlite.so", "handlers/exec.so", "registries/none.so"},
        "drover-rabbitmq": {"brokers/rabbitmq.so", "brokers/rabbitmq/management.so"},
        "drover-consul": {"registries/consul.so"},
        "libdrover-dev": set(),
    }
    # The configuration is the administrator's, and nothing is put where only administrators put things.
    assert {file for file in everything if file.startswith("./etc/")} == {"./etc/drover/drover.conf"}
    assert not [file for file in everything if file.startswith(("./usr/local/", "./var/", "./run/"))]


def test_the_sample_is_built_with_the_headers_alone(debs, tmp_path):
    subprocess.run(["dpkg-deb", "-x", debs["libdrover-dev"], tmp_path], check=True)
    made = tmp_path / "made"
    made.mkdir()
    environment = dict(os.environ, PKG_CONFIG_PATH=str(tmp_path / "usr/share/pkgconfig"),
                       CPPFLAGS=f"-I{tmp_path}/usr/include", CFLAGS="-O2 -Wall -Wextra -Werror")
    subprocess.run(["make", "-f", tmp_path / "usr/share/doc/drover/examples/Makefile", f"OUT={made}"], check=True, env=environment)
    assert {file.name for file in made.iterdir()} == {"user.registered.so", "order.paid"}
