// `ipcfs doctor`: prints what examination.cpp finds. One thread.
#include <algorithm>
#include <string>
#include <vector>

#include <command.hpp>
#include <examination.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* to_string(Level level) {
    return level == Level::kOk ? "ok" : level == Level::kWarn ? "warn" : "fail";
}

int doctor(const Globals& globals, const NoOptions&) {
    std::vector<Finding> findings = examine(choose_root(globals.mount));
    auto count = [&](Level level) {
        return std::count_if(findings.begin(), findings.end(),
                             [&](const Finding& each) { return each.level == level; });
    };
    bool failed = count(Level::kFail) > 0;
    if (globals.json) {
        Json json;
        json.begin_object().key("ok").value(!failed).key("checks").begin_array();
        for (const Finding& each : findings) {
            json.begin_object()
                .key("check")
                .value(each.check)
                .key("level")
                .value(to_string(each.level));
            json.key("found").value(each.found).key("advice");
            if (each.advice.empty()) {
                json.null();
            } else {
                json.value(each.advice);
            }
            json.end();
        }
        print(json.end().end().take());
        return failed ? kError : kOk;
    }
    std::size_t widest = 0;
    for (const Finding& each : findings) widest = std::max(widest, each.check.size());
    std::string out;
    for (const Finding& each : findings) {
        if (globals.quiet && each.level == Level::kOk) continue;
        std::string level = to_string(each.level);
        out += level + std::string(6 - level.size(), ' ') + for_output(each.check);
        out += std::string(widest - each.check.size() + 2, ' ') + for_output(each.found) + "\n";
        if (!each.advice.empty()) out += "      -> " + for_output(each.advice) + "\n";
    }
    if (!globals.quiet) {
        out += std::to_string(count(Level::kOk)) + " ok, " + std::to_string(count(Level::kWarn)) +
               " with a warning, " + std::to_string(count(Level::kFail)) + " failed\n";
    }
    print(out);
    return failed ? kError : kOk;
}

Registration<NoOptions> g_doctor(
    Group::kDaemon, "doctor", "Check what this machine offers and advise on what is missing",
    "  ipcfs doctor\n  ipcfs doctor --json | python3 -m json.tool", [](Command&, NoOptions&) {},
    doctor);

}  // namespace
}  // namespace ipcfs::client
