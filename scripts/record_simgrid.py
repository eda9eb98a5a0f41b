"""Record what SimGrid's CM02 model says of shifts on a fat tree and a dragonfly, as a fixture for tests.

    apt-get install python3-simgrid          # Debian 12: SimGrid 3.32
    /usr/bin/python3 scripts/record_simgrid.py > tests/captures/simgrid/shifts.csv

Needs nothing of towtank. In shift k of n hosts host i sends to host (i + k) mod n, all at once. One process a
platform, because SimGrid has one engine a process. Cross traffic (5 % of the opposite direction, a correction for
TCP acknowledgements) is off; the rest is CM02 as it comes.
"""

import subprocess
import sys
import tempfile

BANDWIDTH = 12.5e9
LATENCY = 1e-6
MESSAGE_BYTES = 10_000_000
# name, kind, sizes. Fat tree: children and parents of each level. Dragonfly: groups, switches, hosts a switch.
PLATFORMS = {
    "fat-tree-64": ("fat-tree", (8, 8), (1, 8)),
    "fat-tree-128-oversubscribed": ("fat-tree", (16, 8), (1, 4)),
    "fat-tree-512": ("fat-tree", (8, 8, 8), (1, 8, 8)),
    "dragonfly-64": ("dragonfly", (4, 4), (4,)),
    "dragonfly-256": ("dragonfly", (8, 8), (4,)),
    "dragonfly-512": ("dragonfly", (8, 16), (4,)),
}


def shifts(hosts):
    """Some near, some far, some that collide."""
    return sorted({1, 2, 3, hosts // 16, hosts // 8, hosts // 8 + 1, hosts // 4, hosts // 3, hosts // 2})


def platform(kind, first, second):
    """XML of the platform; hosts are named by their number."""
    if kind == "fat-tree":
        hosts = 1
        for size in first:
            hosts *= size
        levels = [first, second, [1] * len(first)]
        sizes = ";".join([str(len(first)), *(",".join(map(str, level)) for level in levels)])
        topology = "FAT_TREE"
    else:
        (groups, switches), (per_switch,) = first, second
        hosts = groups * switches * per_switch
        sizes = f"{groups},1;1,1;{switches},1;{per_switch}"
        topology = "DRAGONFLY"
    return f"""<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1"><cluster id="net" prefix="h" radical="0-{hosts - 1}" suffix="" speed="1Gf"
  bw="{BANDWIDTH}Bps" lat="{LATENCY * 1e6}us" sharing_policy="SPLITDUPLEX"
  topology="{topology}" topo_parameters="{sizes}"/></platform>
"""


def record(name):
    """Print one line for each shift: mean and last arrival of its transfers."""
    import simgrid

    kind, first, second = PLATFORMS[name]
    settings = ["--log=root.thresh:error", "--cfg=network/model:CM02", "--cfg=network/crosstraffic:0"]
    engine = simgrid.Engine(["record", *settings])
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(platform(kind, first, second))
        file.flush()
        engine.load_platform(file.name)
    hosts = [simgrid.Host.by_name(f"h{number}") for number in range(len(engine.all_hosts))]

    def one(number, shift, begin, arrivals):
        simgrid.Comm.sendto(hosts[number], hosts[(number + shift) % len(hosts)], MESSAGE_BYTES)
        arrivals[number] = engine.clock - begin

    def shift_all():
        for shift in shifts(len(hosts)):
            arrivals = [0.0] * len(hosts)
            actors = [
                simgrid.Actor.create(f"a{n}", hosts[n], one, n, shift, engine.clock, arrivals)
                for n in range(len(hosts))
            ]
            for actor in actors:
                actor.join()
            mean = sum(arrivals) / len(arrivals)
            print(f"{name},{len(hosts)},{shift},{mean:.9g},{max(arrivals):.9g}", flush=True)

    simgrid.Actor.create("shifts", hosts[0], shift_all)
    engine.run()


def main():
    """Record all platforms, each in a process of its own."""
    if len(sys.argv) > 1:
        record(sys.argv[1])
        return
    print("# SimGrid 3.32 (Debian 12), CM02 without cross traffic; made by scripts/record_simgrid.py.")
    print(
        f"# Links of {BANDWIDTH:g} B/s and {LATENCY:g} s, {MESSAGE_BYTES} bytes from host i to (i + shift) mod hosts."
    )
    print("platform,hosts,shift,mean_s,last_s", flush=True)
    for name in PLATFORMS:
        subprocess.run([sys.executable, __file__, name], check=True, timeout=600)


if __name__ == "__main__":
    main()
