# syntax=docker/dockerfile:1
# The image that `cargo xtask image` makes, for those who build with a container engine. Build it on
# a machine of the kind that it is for. docs/deploy.md says what is in it.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# It installs what it needs. Of the archive's blobs, Docker's own manifest names the layer last.
RUN cargo xtask image --output /image.tar \
 && mkdir /blobs /layer \
 && tar --extract --file /image.tar --directory /blobs \
 && layer=$(grep --only-matching 'blobs/sha256/[0-9a-f]*' /blobs/manifest.json | tail --lines 1) \
 && tar --extract --file "/blobs/$layer" --directory /layer

FROM scratch
COPY --from=build /layer/ /
USER 0:0
ENV PATH=/usr/local/bin
ENTRYPOINT ["/interceptor"]
