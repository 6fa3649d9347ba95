# vosssl in a container; data and runs are mounted.
#   docker build -t vosssl .                                   for CPUs
#   docker build -t vosssl --build-arg TORCH=cu128 .           for NVIDIA GPUs: run it with --gpus all
#   docker run --rm -v "$PWD/runs:/work/runs" vosssl mode=train hparam=slots
FROM python:3.11.11-slim-bookworm

# cpu, or a CUDA version of https://download.pytorch.org/whl; CUDA itself comes with these wheels
ARG TORCH=cpu
# of the person whose files are mounted: --build-arg UID=$(id -u)
ARG UID=1000

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/home/vosssl

# what opencv-python loads, windows included; versions are Debian's, which drops a pinned one with its next update
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# torch before the sources, so that a change of these does not download it again
RUN pip install --index-url "https://download.pytorch.org/whl/${TORCH}" "torch>=2.9" "torchvision>=0.24"

COPY pyproject.toml README.md /opt/vosssl/
COPY vosssl /opt/vosssl/vosssl
COPY cfg /opt/vosssl/cfg
COPY eval /opt/vosssl/eval
RUN pip install /opt/vosssl

RUN useradd --uid "${UID}" --create-home vosssl \
    && mkdir -p /work/data /work/runs \
    && chown -R vosssl /work
USER ${UID}
WORKDIR /work
VOLUME ["/work/data", "/work/runs"]
ENTRYPOINT ["python", "-m", "vosssl"]
CMD ["mode=help"]
