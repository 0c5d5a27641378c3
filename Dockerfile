FROM python:3.12-slim
WORKDIR /opt/trading_ops
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trading_ops trading_ops
RUN pip install --no-cache-dir -c constraints.txt . && useradd --create-home --uid 1000 ops
COPY dagster.yaml workspace.yaml ./
RUN mkdir var && chown ops var
USER ops
ENV DAGSTER_HOME=/opt/trading_ops
