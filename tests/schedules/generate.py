#!/usr/bin/env python3
"""Writes table.tsv: what schedules come to, said by others than the code under test.

    pip install cronsim croniter tzdata && python3 generate.py > table.tsv

Each line: expression, zone, the time asked about, the times that follow it (UTC), and who says so. The times are
those of the rules below, which are written from crontab(5) of Debian, day by day and without regard for speed.
cronsim and croniter, which know nothing of them, are asked the same. A line on which cronsim differs must have one
of the reasons in `why_cronsim_differs`, or nothing is written.
"""
import datetime as dt
import sys
import zoneinfo

import croniter
import cronsim
from cronsim.cronsim import Field

zoneinfo.reset_tzpath([])  # tzdata's own, whatever the machine has
UTC = dt.timezone.utc
COUNT = 5
NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}


def six(expression):
    fields = NICKNAMES.get(expression, expression).upper().replace("?", "*").split()
    return fields if len(fields) == 6 else ["0", *fields]


class Rules:
    """What an expression says of days and times of day."""

    def __init__(self, expression):
        fields = six(expression)
        self.times = [
            (hour, minute, second)
            for hour in sorted(Field.HOUR.parse(fields[2]))
            for minute in sorted(Field.MINUTE.parse(fields[1]))
            for second in sorted(Field.SECOND.parse(fields[0]))
        ]
        parts = fields[3].split(",")
        self.nearest = {int(part[:-1]) for part in parts if part.endswith("W") and part != "LW"}
        parts = [part for part in parts if not part.endswith("W") or part == "LW"]
        self.days = Field.DAY.parse(",".join(parts)) if parts else set()
        self.months = Field.MONTH.parse(fields[4])
        self.both = fields[3].startswith("*") or fields[5].startswith(("*", "+"))
        self.weekdays = Field.DOW.parse(fields[5].lstrip("+"))
        self.paced = any(field.startswith("*") for field in fields[:3])

    def has_day(self, date):
        if date.month not in self.months:
            return False
        first = date.replace(day=1)
        last = (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
        dom = date.day in self.days
        dom |= cronsim.CronSim.LAST in self.days and date == last
        dom |= cronsim.CronSim.LAST_WEEKDAY in self.days and date == nearest_weekday(last, first, last)
        dom |= any(
            day <= last.day and nearest_weekday(first.replace(day=day), first, last) == date
            for day in self.nearest
        )
        names = {date.isoweekday(), date.isoweekday() % 7}
        nth = (date.day + 6) // 7
        dow = any(
            name in self.weekdays
            or (name, nth) in self.weekdays
            or (date + dt.timedelta(days=7) > last and (name, cronsim.CronSim.LAST) in self.weekdays)
            for name in names
        )
        return dom and dow if self.both else dom or dow


def nearest_weekday(day, first, last):
    step = {5: -1, 6: 1}.get(day.weekday(), 0)
    moved = day + dt.timedelta(days=step)
    if moved < first:
        moved = day + dt.timedelta(days=2)
    if moved > last:
        moved = day - dt.timedelta(days=2)
    return moved


def instants(local, zone, paced):
    """When the clocks of the zone show this time."""
    both = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    shown = [at for at in both if at.astimezone(zone).replace(tzinfo=None) == local]
    if paced:
        return set(shown)
    if shown:
        return {min(shown)}
    # Left out: the first second that is shown after it.
    late, early = max(both), min(both)
    before = early.astimezone(zone).utcoffset()
    while late - early > dt.timedelta(seconds=1):
        middle = early + dt.timedelta(seconds=(late - early).total_seconds() // 2)
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return {late}


def by_rules(expression, zone, asked):
    rules, found = Rules(expression), set()
    day = asked.astimezone(zone).date() - dt.timedelta(days=2)
    until = None
    for _ in range(150 * 366):
        if rules.has_day(day):
            for time in rules.times:
                found |= {at for at in instants(dt.datetime.combine(day, dt.time(*time)), zone, rules.paced) if at > asked}
            if until is None and len(found) > COUNT:
                until = day + dt.timedelta(days=3)
        if until and day >= until:
            break
        day += dt.timedelta(days=1)
    return sorted(found)[:COUNT]


def by_cronsim(expression, zone, asked):
    every = cronsim.CronSim(NICKNAMES.get(expression, expression), asked.astimezone(zone))
    return [next(every).astimezone(UTC) for _ in range(COUNT)]


def by_croniter(expression, zone, asked):
    fields = six(expression)
    every = croniter.croniter(" ".join([*fields[1:], fields[0]]), asked.astimezone(zone))
    return [every.get_next(dt.datetime).astimezone(UTC) for _ in range(COUNT)]


def why_cronsim_differs(expression, zone, asked, paced):
    fields = NICKNAMES.get(expression, expression).upper().split()
    local = asked.astimezone(zone)
    if "W" in " ".join(fields[-3:]).replace("LW", "").replace("WED", ""):
        return "no-w"  # it knows W only as LW
    if "+" in expression or "?" in expression:
        return "no-plus"  # nor + and ?
    if len(fields) == 6 and not paced:
        return "six-fields"  # it takes every expression with seconds for one that keeps its pace
    if local.fold and not paced:
        return "second-pass"  # it begins at the local time asked about, but in the first pass
    if zone.key in ("Australia/Lord_Howe", "America/St_Johns") and paced:
        return "odd-jump"  # it steps by hours: where a clock jumps by half of one, or not on the hour, it skips minutes
    return None


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception:
        return None


def cases():
    # The nights on which clocks are put forward or back, or a day is left out: when to ask, in UTC.
    nights = [
        ("Europe/Berlin", "2026-03-28T12:00", "2026-03-29T00:59:59", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:15", "2026-10-25T01:15"),
        ("Europe/London", "2027-03-27T20:00", "2027-10-30T20:00"),
        ("America/New_York", "2026-03-07T12:00", "2026-03-08T06:59:59"),
        ("America/New_York", "2026-10-31T12:00", "2026-11-01T05:20", "2026-11-01T06:20"),
        ("Australia/Lord_Howe", "2026-04-04T06:00", "2026-04-04T14:50", "2026-04-04T15:10"),
        ("Australia/Lord_Howe", "2026-10-03T06:00", "2026-10-03T15:29:59"),
        ("America/Sao_Paulo", "2018-11-03T12:00", "2018-11-04T02:59:59"),
        ("America/Sao_Paulo", "2018-02-17T12:00", "2018-02-18T02:10"),
        ("Africa/Casablanca", "2026-02-14T12:00", "2026-03-21T12:00"),
        ("Pacific/Apia", "2011-12-29T12:00", "2011-12-30T09:59:59"),
        ("Africa/Cairo", "2026-04-23T12:00", "2026-10-29T12:00"),
        ("America/St_Johns", "2011-03-13T00:00", "2011-11-05T20:00"),
        ("Antarctica/Troll", "2026-03-28T20:00", "2026-10-24T20:00"),
        ("Asia/Beirut", "2026-03-28T12:00", "2026-10-24T12:00"),
        ("Europe/Berlin", "2038-03-27T12:00", "2038-10-30T12:00"),
        ("America/New_York", "2051-03-11T12:00", "2051-11-04T12:00"),
        ("Asia/Kolkata", "2026-03-28T12:00"),
        ("UTC", "2026-03-28T12:00"),
    ]
    at_night = [
        "30 2 * * *", "0 2,3 * * *", "0,15,30,45 1-3 * * *", "15 0 * * *", "@daily", "30 1 * * sun", "59 23 * * *",
        "0 12 * * *", "30 2 29 3 *", "0-59 2 * * *", "*/15 * * * *", "@hourly", "*/20 2 * * *", "0 */2 * * *",
        "5 0-23/3 * * *", "45 * * * *", "30 30 2 * * *", "*/30 59 1 * * *", "0 0 3 * * *", "10 0,1,2,3 * * 0,6",
    ]
    for zone, *times in nights:
        for time in times:
            for expression in at_night:
                yield expression, zone, time
    # The calendar.
    calendar = [
        "0 4 * * *", "0 0 29 2 *", "0 0 29 2 +mon", "0 0 31 * *", "0 0 30 * *", "0 0 L * *", "0 18 LW * *", "0 9 15W * *",
        "0 9 1W * *", "0 9 31W * *", "0 9 1W,15W,L * *", "0 0 L 2 *", "0 9 * * 1#1", "0 9 * * fri#5", "0 9 * * 5L",
        "0 9 * * 0L", "0 9 13 * 5", "0 9 13 * +5", "0 9 */2 * 1", "0 9 1-7 * */2", "0 9 * * mon-fri", "0 9 * * sat,sun", "0 9 * * 7",
        "0 9 * * 5-7", "0 0 1 1 *", "@yearly", "@annually", "@monthly", "@weekly", "@midnight", "0 0 1 */3 *", "0 0 1 jan,jul *",
        "0 0 1-5 feb-apr *", "7 3 28-31 * *", "*/7 * * * *", "3-59/15 * * * *", "0 0-23/5 * * *", "0 22-23 * * *",
        "30 * * * * *", "*/25 * * * * *", "0 0 12 ? * wed", "15 30 8 1,15 * *", "59 59 23 31 12 *", "0 0 * 2 mon#5",
        "0 0 5 * mon#2", "0 0 31 1-12/2 *",
    ]
    asked = [
        ("UTC", "2026-11-20T04:00"), ("Europe/Berlin", "2027-12-31T22:59:59"), ("America/New_York", "2038-01-19T03:14:07"),
        ("Asia/Kolkata", "2096-02-28T18:29:59"),
    ]
    for zone, time in asked:
        for expression in calendar:
            yield expression, zone, time


def main():
    lines, differing = [], []
    for expression, name, time in cases():
        zone = zoneinfo.ZoneInfo(name)
        asked = dt.datetime.fromisoformat(time).replace(tzinfo=UTC)
        expected = by_rules(expression, zone, asked)
        says = [
            who
            for who, function in [("cronsim", by_cronsim), ("croniter", by_croniter)]
            if attempt(function, expression, zone, asked) == expected
        ]
        if "cronsim" not in says:
            why = why_cronsim_differs(expression, zone, asked, Rules(expression).paced)
            if why is None:
                differing.append((expression, name, time, expected, attempt(by_cronsim, expression, zone, asked)))
            says.insert(0, f"rules:{why}")
        text = lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append("\t".join([expression, name, text(asked), " ".join(map(text, expected)), ",".join(says)]))
    for expression, name, time, expected, other in differing:
        print(expression, name, time, "\n  rules  ", *map(str, expected), "\n  cronsim", *map(str, other or ["refused"]), file=sys.stderr)
    if differing:
        sys.exit(f"{len(differing)} differences without a reason")
    print("\n".join(["# Written by generate.py.", *lines]))


main()
