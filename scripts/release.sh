#!/usr/bin/env bash
# Make a release of what is on main: the version in pyproject.toml, the heading in CHANGELOG.md, a commit and a tag.
# Usage: release.sh VERSION. Nothing is pushed: it prints what to push, and how to undo it.
set -euo pipefail
cd -P "$(dirname "$0")/.."

fail() {
    echo "release.sh: $*" >&2
    exit 2
}

version=${1:-}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "'$version' is no version; MAJOR.MINOR.PATCH is accepted, such as 1.4.0"
[ "$(git branch --show-current)" = main ] || fail "a release is made on main, not on '$(git branch --show-current)'"
[ -z "$(git status --porcelain)" ] || fail "there are uncommitted changes; commit them first"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || fail "the tag v$version exists"
! grep -q "^## \[$version\]" CHANGELOG.md || fail "CHANGELOG.md has a section [$version] already"
sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/p' CHANGELOG.md | grep -q '^- ' || fail "CHANGELOG.md has nothing under [Unreleased]"

sed -i "0,/^version = \".*\"/s//version = \"$version\"/" pyproject.toml
sed -i "s/^## \[Unreleased\]$/## [Unreleased]\n\n## [$version] - $(date -u +%F)/" CHANGELOG.md
make install-dev
make check
git commit --quiet --message "Release $version" pyproject.toml CHANGELOG.md
git tag --annotate --message "Birthday Scheduler $version" "v$version"
echo "Made v$version. Publish it with:  git push origin main v$version"
echo "Undo it with:                     git tag --delete v$version && git reset --hard HEAD~1"
