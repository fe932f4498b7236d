# A pinned digest, or a mirror, may be passed in its place.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
# An extra wheel index: PyTorch's index of CPU wheels makes an image of a quarter of the size, without CUDA.
ARG EXTRA_INDEX_URL=""
# Versions are not pinned: Debian's mirrors keep one of each. The base image's digest is what to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml version README.md LICENSE /src/
COPY bids_harmonize /src/bids_harmonize
# Without pip, test suites and C++ headers, none of which is used at run time. The bytecode does not look at the
# times of its sources, which a copy from image to image may change; PyTorch's own tests hold files for newer
# Pythons, which cannot be compiled.
RUN python3 -m venv --without-pip /app \
    && python3 -m pip --python /app install --no-cache-dir --no-compile \
        ${EXTRA_INDEX_URL:+--extra-index-url "${EXTRA_INDEX_URL}"} /src \
    && find /app/lib -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf /app/lib/python3*/site-packages/torch/include /app/lib/python3*/site-packages/torch/test \
    && python3 -m compileall -q -j 0 -x '/testing/_internal/' --invalidation-mode unchecked-hash /app/lib

FROM ${BASE_IMAGE}
# What only a build knows.
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="bids-harmonize" \
      org.opencontainers.image.description="A BIDS App that harmonizes T1w and T2w MRI intensities" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The bids-harmonize developers" \
      org.opencontainers.image.source="https://github.com/bids-apps/harmonize" \
      org.opencontainers.image.url="https://github.com/bids-apps/harmonize" \
      org.opencontainers.image.documentation="https://github.com/bids-apps/harmonize/tree/main/docs" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Not pinned, as above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /app /app
# BIDS Apps say there which version they are.
COPY version /version
# A login shell, in which Boutiques and nipoppy run commands, forgets the PATH below.
RUN ln -s /app/bin/bids-harmonize /app/bin/bids-harmonize-image /usr/local/bin/
ENV PATH=/app/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    IS_DOCKER=1
# -I: neither the folder it is started in nor a PYTHONPATH that Apptainer passes on can put another package in front.
ENTRYPOINT ["/app/bin/python3", "-I", "-m", "bids_harmonize"]
