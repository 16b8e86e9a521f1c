"""Renders or lints a chart with Helm, which the package helm-python-sdk has as a library.

Input: {"task": "render" or "lint", "chart": DIRECTORY, "namespace": NAME, "values": [VALUES, ...]}.
Output, for each of the values: of "render", {"files": {PATH: TEXT}} or {"error": TEXT}; of "lint", the texts of
warnings and errors.
"""

import json
import sys

import helm_python as helm

WARNING = 2


def render(directory, namespace, all_values):
    with helm.Chart.load(directory) as chart:
        return [render_one(chart, namespace, values) for values in all_values]


def render_one(chart, namespace, values):
    try:
        chart.validate_schema(values)
        return {"files": chart.render(values, name="interceptor", namespace=namespace)}
    except helm.HelmError as error:
        return {"error": str(error)}


def lint(directory, namespace, all_values):
    reports = [helm.lint(directory, values, strict=True, namespace=namespace) for values in all_values]
    return [
        [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] >= WARNING]
        for report in reports
    ]


request = json.load(sys.stdin)
task = {"render": render, "lint": lint}[request["task"]]
json.dump(task(request["chart"], request["namespace"], request["values"]), sys.stdout)
