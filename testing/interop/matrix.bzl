"""interop_pair_test: one pair of matrix.py as a test."""

def interop_pair_test(server, client, variants, data):
    """The cases of the interoperability tests, one peer's client against another's server.

    Args:
      server: a peer of matrix.py.
      client: another, or the same.
      variants: how they meet: tls, native, unix, nginx, haproxy.
      data: the peers' programs.
    """

    # sh_test: see tools/lint. Megabytes over the kernel's sockets: whole_io.
    native.sh_test(
        name = "_".join([client, "calls", server] + variants).replace("-", "_") + "_test",
        size = "medium",
        srcs = ["matrix.py"],
        args = [",".join([server, client] + variants)],
        data = data,
        tags = [
            "no_tsan",
            "whole_io",
        ],
    )
