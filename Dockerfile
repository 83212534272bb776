# A small prediction service for an exported model (diffmic export MODEL --out model.onnx): ONNX
# Runtime, without torch. docs/serve.md says how to build and run it.
FROM python:3.13-slim AS build
RUN python -m venv /venv
COPY requirements-service.txt /src/
RUN /venv/bin/pip install --no-cache-dir -r /src/requirements-service.txt
COPY pyproject.toml README.md LICENSE /src/
COPY diffmic /src/diffmic
# Without its dependencies, of which torch is one; and without the weights that come with it.
RUN /venv/bin/pip install --no-cache-dir --no-deps /src \
    && rm -r /venv/lib/python3.13/site-packages/diffmic/hub/bundled \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.13-slim
COPY --from=build /venv /venv
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin diffmic
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /model
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# SIGTERM, by which docker stop begins, answers what was accepted.
ENTRYPOINT ["diffmic", "serve"]
CMD ["model.onnx", "--host", "0.0.0.0"]
