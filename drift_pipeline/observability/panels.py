"""What the dashboards show: each panel's queries in PromQL, over the series of `drift exporter` and of the gateway."""

from dataclasses import dataclass
from typing import Literal

OF = '{model=~"$model"}'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (PromQL, legend); `unit` is Grafana's name of it.

    `quiet`: empty is good news, such as no concern. `repeat`: a variable for each of whose values it is drawn.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["lines", "number", "states", "table"] = "lines"
    unit: str = "short"
    told: str = ""
    width: int = 12
    quiet: bool = False
    verdicts: bool = False
    repeat: str = ""


@dataclass(frozen=True)
class Board:
    """One dashboard. `variables` are (name, PromQL of its values, whether several may be chosen)."""

    uid: str
    title: str
    told: str
    panels: tuple[Panel, ...]
    variables: tuple[tuple[str, str, bool], ...] = ()
    phases: bool = False


def number(title: str, query: str, unit: str = "short", **more: object) -> Panel:
    """The last value, large."""
    return Panel(title, ((query, "{{model}}"),), "number", unit, width=4, **more)  # type: ignore[arg-type]


_ALL = (("model", "label_values(drift_model_info, model)", True),)
_ONE = (("model", "label_values(drift_model_info, model)", False),)
_KPI = ("kpi", f"label_values(drift_kpi_value{OF}, kpi)", True)

FLEET = Board(
    "drift-fleet",
    "Drift: fleet",
    "Every model at a glance: who drifts, since when, and what is done about it.",
    (
        number("Models", "count(drift_model_info)"),
        number("In breach", "count(drift_model_verdict == 2) or vector(0)"),
        number("Inconclusive", "count(drift_model_verdict == -1) or vector(0)"),
        number("Incidents open", "sum(drift_incident_open)"),
        number("Nobody acknowledged", "sum(drift_incident_open) - (sum(drift_incident_acknowledged) or vector(0))"),
        number("Longest without a tick", "max(time() - drift_last_tick_timestamp_seconds)", "s"),
        Panel("Verdicts", ((f"drift_model_verdict{OF}", "{{model}}"),), "states", width=24, verdicts=True),
        Panel("Columns that drift", ((f"drift_drifting_columns{OF}", "{{model}}"),)),
        Panel(
            "Age of open incidents",
            ((f"time() - drift_incident_opened_timestamp_seconds{OF}", "{{model}}"),),
            unit="s",
            quiet=True,
        ),
        Panel("Last decision", ((f"drift_last_decision_info{OF}", "{{model}} {{trigger}} {{action}}"),), "table"),
        Panel("Rollouts", ((f"drift_rollout_info{OF}", "{{model}} {{phase}} {{candidate}}"),), "table", quiet=True),
        Panel(
            "Retrains of 30 days, and how many there may be",
            (
                (f"drift_retrain_budget_used{OF}", "{{model}}"),
                (f"drift_retrain_budget_limit{OF}", "{{model}} limit"),
            ),
        ),
        Panel(
            "Concerns",
            ((f"drift_concern_active{OF}", "{{model}} {{concern}}"),),
            "table",
            quiet=True,
            told="What went wrong beside the loop within two hours.",
        ),
    ),
    _ALL,
)

MODEL = Board(
    "drift-model",
    "Drift: model",
    "One model: its KPIs against their thresholds, with the phases of its rollouts as annotations.",
    (
        number("Verdict", f"drift_model_verdict{OF}", verdicts=True),
        number("KPIs judged", f"drift_kpis_judged{OF}"),
        number("KPIs configured", f"drift_kpis_configured{OF}"),
        number("Columns that drift", f"drift_drifting_columns{OF}"),
        number("Incident open", f"drift_incident_open{OF}"),
        number("Last tick", f"time() - drift_last_tick_timestamp_seconds{OF}", "s"),
        Panel(
            "$kpi",
            (
                ('drift_kpi_value{model=~"$model", kpi=~"$kpi"}', "{{window}} value"),
                ('drift_kpi_bound{model=~"$model", kpi=~"$kpi"}', "{{window}} bound"),
                ('drift_kpi_threshold{model=~"$model", kpi=~"$kpi"}', "{{window}} threshold"),
            ),
            told="The bound is what decides: the value with its uncertainty.",
            width=24,
            repeat="kpi",
        ),
        Panel(
            "Verdict of each KPI",
            ((f"drift_kpi_verdict{OF}", "{{kpi}} {{window}}"),),
            "states",
            width=24,
            verdicts=True,
        ),
        Panel("PSI of the worst columns", ((f"drift_column_psi{OF}", "{{column}} {{window}}"),)),
        Panel(
            "Distance of the worst columns",
            ((f"drift_column_distance{OF}", "{{column}} {{window}}"),),
            told="Kolmogorov-Smirnov's D of a number, total variation of a category.",
            unit="percentunit",
        ),
        Panel("Rows and labels that KPIs are of", ((f"drift_kpi_rows{OF}", "{{kpi}} {{window}}"),)),
        Panel("Labels since the champion is watched", ((f"drift_labels{OF}", "{{state}}"),)),
        Panel(
            "Decisions and trainings",
            (
                (f"drift_decisions_total{OF}", "decisions"),
                (f"drift_retrains_total{OF}", "trainings"),
            ),
        ),
        Panel("Retrains under way", ((f"drift_retrains_active{OF}", "{{lane}} {{status}}"),), quiet=True),
    ),
    (*_ONE, _KPI),
    phases=True,
)

_ROWS = f"sum by (version, route) (rate(drift_gateway_rows_total{OF}{RATE}))"
_FAILED = f"sum by (version, route) (rate(drift_gateway_row_errors_total{OF}{RATE}))"
_SECONDS = f"rate(drift_gateway_request_seconds_bucket{OF}{RATE})"
ROLLOUT = Board(
    "drift-rollout",
    "Drift: rollout",
    "The champion beside the candidate: what each is sent, how it answers, and what a rollout waits for.",
    (
        number("Candidate's share", f"drift_rollout_weight_ratio{OF}", "percentunit", quiet=True),
        number("Time in this phase", f"time() - drift_rollout_phase_timestamp_seconds{OF}", "s", quiet=True),
        number("Paused", f"drift_paused{OF}"),
        number("Maintenance", f"drift_maintenance{OF}"),
        Panel("Waits for", ((f"drift_rollout_waiting{OF}", "{{on}}"),), "table", width=8, quiet=True),
        Panel("Phase", ((f"drift_rollout_info{OF}", "{{phase}} {{candidate}}"),), "states", width=24, quiet=True),
        Panel("Rows a second", ((_ROWS, "{{version}} {{route}}"),), unit="rowsps"),
        Panel(
            "Rows without a score",
            ((f"({_FAILED} or 0 * {_ROWS}) / {_ROWS}", "{{version}} {{route}}"),),
            unit="percentunit",
        ),
        Panel(
            "Latency, 95 % are faster",
            (
                (
                    f"histogram_quantile(0.95, sum by (le, route) ({_SECONDS}))",
                    "{{route}}",
                ),
            ),
            unit="s",
        ),
        Panel("Weight of the canary", ((f"drift_gateway_canary_weight_percent{OF}", "{{model}}"),), unit="percent"),
        Panel("Versions that are loaded", ((f"drift_gateway_loaded_version{OF}", "{{role}} {{version}}"),), "table"),
        Panel("Candidates rejected, one after the other", ((f"drift_retrains_rejected_in_a_row{OF}", "{{model}}"),)),
    ),
    _ONE,
    phases=True,
)

_REQUESTS = f"rate(drift_gateway_requests_total{OF}{RATE})"
SERVING = Board(
    "drift-serving",
    "Drift: serving",
    "The gateway: requests, latency, what is refused and what it cannot do.",
    (
        Panel("Requests a second, by status", ((f"sum by (status) ({_REQUESTS})", "{{status}}"),), unit="reqps"),
        Panel(
            "Requests that failed (5xx)",
            (
                (
                    '(sum by (model) (rate(drift_gateway_requests_total{model=~"$model", status=~"5.."}' + RATE + "))"
                    f" or 0 * sum by (model) ({_REQUESTS})) / sum by (model) ({_REQUESTS})",
                    "{{model}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "Latency",
            tuple(
                (
                    f"histogram_quantile({q}, sum by (le) ({_SECONDS}))",
                    f"p{q:.0%}",
                )
                for q in (0.5, 0.95, 0.99)
            ),
            unit="s",
        ),
        Panel(
            "Rows a second",
            ((f"sum by (model) (rate(drift_gateway_rows_total{OF}{RATE}))", "{{model}}"),),
            unit="rowsps",
        ),
        Panel(
            "Values off their form",
            ((f"rate(drift_gateway_off_form_total{OF}{RATE})", "{{model}} {{column}}"),),
            quiet=True,
        ),
        Panel("Versions that cannot be loaded", ((f"drift_gateway_load_problems{OF}", "{{model}}"),), quiet=True),
        Panel(
            "Events that could not be written down",
            ((f"rate(drift_gateway_spool_failures_total{OF}{RATE})", "{{model}}"),),
            quiet=True,
            told="Then nothing is answered.",
        ),
        Panel(
            "Since the control store was last heard", (("drift_gateway_routes_age_seconds", "{{instance}}"),), unit="s"
        ),
        Panel("Not sent over OTLP", (("drift_gateway_otlp_unsent", "{{reason}}"),), quiet=True),
    ),
    _ALL,
)

PLATFORM = Board(
    "drift-platform",
    "Drift: platform",
    "The loop itself: outbox, checkpoint, capture, Dagster's ticks and runs, disks.",
    (
        number("Home readable", "drift_up"),
        number("Processes up", 'sum(up{job=~"drift_.*"})'),
        number("Age of the checkpoint", "time() - drift_checkpoint_timestamp_seconds", "s"),
        number("Records without one", "drift_audit_records_total - drift_checkpoint_records"),
        number("Capture last looked", "time() - drift_capture_last_step_timestamp_seconds", "s"),
        number("Disk left", "drift_home_disk_free_bytes", "bytes"),
        Panel(
            "Outbox: messages that wait",
            (
                ("sum by (topic) (drift_outbox_messages)", "{{topic}}"),
                ("sum by (topic) (drift_outbox_failing_messages)", "{{topic}}, tried before"),
            ),
            quiet=True,
        ),
        Panel(
            "Outbox: age of the oldest",
            (("time() - drift_outbox_oldest_timestamp_seconds", "{{topic}}"),),
            unit="s",
            quiet=True,
        ),
        Panel(
            "From the event to its alert, 95 %",
            (
                (
                    "histogram_quantile(0.95, sum by (le) (rate(drift_alert_delivery_seconds_bucket[1d])))",
                    "delivered within",
                ),
            ),
            unit="s",
            quiet=True,
        ),
        Panel(
            "Capture: what became of events, a second",
            ((f"rate(drift_capture_events_total{RATE})", "{{kind}}"),),
            unit="cps",
        ),
        Panel(
            "Capture: age of the oldest that waits",
            (("time() - drift_spool_oldest_event_timestamp_seconds", "{{model}}"),),
            unit="s",
            quiet=True,
        ),
        Panel(
            "Capture: messages of Kafka that wait",
            (("drift_kafka_lag_messages", "{{topic}} {{partition}}"),),
            quiet=True,
        ),
        Panel(
            "Dagster: since each model's last tick",
            ((f"time() - drift_last_tick_timestamp_seconds{OF}", "{{model}}"),),
            unit="s",
            told="loop_tick is the sensor that ticks; where these grow, look whether the daemon runs.",
        ),
        Panel("Dagster: ticks a minute", ((f"60 * rate(drift_ticks_total{OF}{RATE})", "{{model}}"),)),
        Panel(
            "Dagster: retrains wanted and running",
            ((f"drift_retrains_active{OF}", "{{model}} {{lane}} {{status}}"),),
            quiet=True,
        ),
        Panel(
            "Sizes",
            (
                ("drift_home_size_bytes", "home"),
                ("drift_control_store_size_bytes", "control store"),
            ),
            unit="bytes",
        ),
        Panel("Exporter: time of a read", (("drift_exporter_read_seconds", "{{instance}}"),), unit="s"),
        Panel("Exporter: reads that failed", ((f"rate(drift_exporter_errors_total{RATE})", "{{part}}"),), quiet=True),
    ),
    _ALL,
)

BOARDS = (FLEET, MODEL, ROLLOUT, SERVING, PLATFORM)
