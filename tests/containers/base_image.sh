#!/usr/bin/env bash
# Stand-ins for the base images, for the tests of images where no registry can be reached. For tests only.
#   base_image.sh IMAGE:TAG     IMAGE is python (Debian 12 with its Python 3.11), nginx (Debian's package of that version) or
#                               nvcr.io/nvidia/tritonserver (the image PYTHON with the tritonserver of nvidia-pytriton)
# Needs root, a running docker engine and debootstrap. TRT_VERSION and CUDA_VERSION: what the Triton stand-in says it has.
set -euo pipefail
tag=${1:?usage: base_image.sh IMAGE:TAG}
debian=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
here=$(cd "$(dirname "$0")" && pwd)

# This machine's certificates and pip configuration, so that pip works inside.
like_this_machine() {
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
  rm -f "$root"/usr/lib/python3.*/EXTERNALLY-MANAGED
}

case "$tag" in
  python:*)
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv,libpython3.11 \
      bookworm "$root" "$debian" >"$root.log" 2>&1 || { tail -3 "$root.log" >&2; exit 1; }
    like_this_machine
    ln -sf /usr/bin/python3 "$root/usr/local/bin/python"
    ln -sf /usr/bin/pip3 "$root/usr/local/bin/pip"
    tar -C "$root" -c . | docker import - "$tag" >/dev/null
    ;;
  nvcr.io/nvidia/tritonserver:*)
    # The older builder: the newer one asks a registry about an image that is here.
    DOCKER_BUILDKIT=0 docker build --quiet --network host -t "$tag" -f "$here/Dockerfile.triton" --build-arg PYTHON \
      --build-arg TRT_VERSION --build-arg CUDA_VERSION "$here" >/dev/null
    ;;
  nginx:*)
    mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial" "$root/debs" "$root/image"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $debian sid main" >"$root/apt/sources.list"
    apt=(apt-get -qq -o Dir::Etc::SourceList="$root/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o Dir::State::Lists="$root/apt/lists" -o Dir::Cache="$root/apt/cache" -o Acquire::Languages=none
      -o APT::Sandbox::User=root)
    "${apt[@]}" update
    packages=(nginx nginx-common libc6 libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1 libgcc-s1)
    (cd "$root/debs" && "${apt[@]}" download "${packages[@]}")
    mkdir -p "$root"/image/{usr/bin,usr/lib,usr/lib64,usr/sbin,tmp,dev,proc,sys,var/log/nginx,var/lib/nginx}
    for name in bin lib lib64 sbin; do ln -s "usr/$name" "$root/image/$name"; done
    for package in "$root"/debs/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root/image"; done
    chmod 1777 "$root/image/tmp"
    tar -C "$root/image" -c . | docker import --change 'CMD ["nginx", "-g", "daemon off;"]' - "$tag" >/dev/null
    ;;
  *)
    echo "base_image.sh: no stand-in for $tag" >&2
    exit 2
    ;;
esac
