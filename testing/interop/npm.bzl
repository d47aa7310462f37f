"""npm_repository: what a package-lock.json names, installed by npm, as one folder: node_modules."""

def _npm_repository_impl(ctx):
    npm = ctx.which("npm")
    if not npm:
        fail("npm is not installed: tools/setup")
    for file in [ctx.attr.package_json, ctx.attr.package_lock]:
        ctx.symlink(file, file.name.split("/")[-1])

    # Scripts of packages are not run: none of ours needs one.
    arguments = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    done = ctx.execute(arguments, timeout = 600)
    if done.return_code:
        fail("npm cannot install what %s names:\n%s%s" % (ctx.attr.package_lock, done.stdout, done.stderr))
    ctx.file("BUILD.bazel", 'exports_files(["node_modules"])\n')

npm_repository = repository_rule(
    implementation = _npm_repository_impl,
    doc = "Fetched only by who builds what names it.",
    attrs = {
        "package_json": attr.label(mandatory = True, allow_single_file = True),
        "package_lock": attr.label(mandatory = True, allow_single_file = True),
    },
)
