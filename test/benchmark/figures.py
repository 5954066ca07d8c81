"""What was measured, and beside it what is to be reached (section 10 of the design)."""
import json


class Figures:
    def __init__(self):
        self.list = []

    def add(self, part, name, value, unit="", most=None, least=None):
        """A figure; met says whether it is at most, or at least, its target."""
        met = None
        if most is not None:
            met = value <= most
        if least is not None:
            met = value >= least
        target = "" if met is None else f"<= {most}" if most is not None else f">= {least}"
        self.list.append({"part": part, "figure": name, "value": value, "unit": unit, "target": target, "met": met})
        print(f"  {name}: {shown(value)} {unit}".rstrip(), flush=True)

    def print_table(self):
        rows = [("part", "figure", "value", "target", "met")]
        rows += [(f["part"], f["figure"], f"{shown(f['value'])} {f['unit']}".rstrip(), f["target"],
                  "" if f["met"] is None else "yes" if f["met"] else "NO") for f in self.list]
        width = [max(len(row[i]) for row in rows) for i in range(5)]
        for row in rows:
            print(f"{row[0]:<{width[0]}}  {row[1]:<{width[1]}}  {row[2]:>{width[2]}}  {row[3]:<{width[3]}}  {row[4]}".rstrip())

    def write(self, path, machine):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "figures": self.list}, file, indent=1)
            file.write("\n")


def shown(value):
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.4f}"
