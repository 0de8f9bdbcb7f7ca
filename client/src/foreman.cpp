// `ipcfs work`: leases one message after the other, runs a command for each, and tells the channel how it
// went. A lease is renewed as long as its command runs; a command whose lease is lost is killed, since
// somebody else may be at work on its message by then. One thread; signals come only while it waits.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <sys/wait.h>
#include <vector>

#include <child.hpp>
#include <content.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <message_reader.hpp>
#include <signals.hpp>
#include <text.hpp>
#include <work.hpp>

namespace ipcfs::client {
namespace {

// A message that is being worked on.
struct Job {
    std::unique_ptr<MessageReader> lease;
    Child child;
    std::uint64_t sequence = 0;
    std::int64_t renew_at = 0;
    std::int64_t limit_at = 0;  // 0: never
    bool lost = false;          // the lease is
    bool late = false;          // it was stopped at its limit
    bool given_up = false;      // it was stopped because all is
};

class Foreman {
public:
    Foreman(const Globals& globals, const WorkOptions& options, const Tree& tree,
            const Channel& channel)
        : globals_(globals), options_(options), tree_(tree), channel_(channel) {}

    int run() {
        for (;;) {
            reap();
            listen();
            if (!taking_over()) hire();
            if (jobs_.empty() && taking_over()) break;
            wait();
            look_after();
        }
        clear_progress();
        return result();
    }

private:
    bool taking_over() const { return over_ || (count_ && taken_ >= *count_); }

    void remark(const std::string& text) const {
        if (globals_.quiet) return;
        clear_progress();
        std::fprintf(stderr, "ipcfs: %s\n", text.c_str());
    }
    std::string named(const Job& job) const {
        return channel_.shown() + ": message " + std::to_string(job.sequence);
    }

    // ---- taking messages ----

    void hire() {
        if (retry_at_ > now()) return;
        while (!taking_over() && jobs_.size() < options_.jobs) {
            if (!taker_ && !open_taker()) return;
            FrameView frame;
            int error = taker_->try_receive(frame);
            if (error == 0 || error == EAGAIN) gone_since_ = retry_at_ = 0;
            if (error == 0) {
                idle_since_ = 0;
                reopened_ = 0;
                begin(frame);
            } else if (error == EAGAIN) {
                return be_idle();
            } else if ((error == ESTALE || error == EIO) && ++reopened_ < kReopen) {
                taker_.reset();  // of a daemon that died and was started again
            } else if (daemon_is_gone(error) && await_daemon()) {
                return;
            } else {
                give_up(error);
            }
        }
    }

    // Whether it is worth to wait for a daemon that is gone: it is started again, and makes the tree
    // and its durable channels again, but no leases.
    bool await_daemon() {
        if (!survives_) return false;
        for (Job& job : jobs_) lose(job);
        if (gone_since_ == 0) {
            gone_since_ = now();
            remark("the daemon is gone; waiting for it to be started again");
        }
        taker_.reset();
        retry_at_ = now() + kSecond / 10;
        return now() - gone_since_ < kComeBack;
    }

    bool open_taker() {
        try {
            taker_ = std::make_unique<MessageReader>(channel_, "framed/lease", kOpen);
            return true;
        } catch (Failure& failure) {
            bool gone = gone_since_ != 0 || health(tree_.root()) == Health::kDead;
            if (failure.code == kGone && gone && await_daemon()) return false;
            failure_ = std::move(failure);
            over_ = true;
            return false;
        }
    }

    void be_idle() {
        if (idle_since_ == 0) idle_since_ = now();
        if (options_.drain && jobs_.empty()) over_ = true;
        if (options_.timeout && now() - idle_since_ >= *options_.timeout) over_ = timed_out_ = true;
    }

    void give_up(int error) {
        over_ = true;
        try {
            if (error == EPIPE) fail(kGone, channel_.shown() + " was removed");
            fail_errno(channel_.shown(), error);
        } catch (Failure& failure) {
            failure_ = std::move(failure);
        }
        // Nobody is there to hold the leases against.
        for (Job& job : jobs_) {
            if (daemon_is_gone(error)) lose(job);
        }
    }

    void begin(const FrameView& frame) {
        clear_progress();
        Job job;
        job.lease = std::move(taker_);
        job.sequence = frame.header.sequence;
        ++taken_;
        job.renew_at = now() + lease_span() / 3;
        if (options_.limit) job.limit_at = now() + *options_.limit;
        int error = 0;
        try {
            Fd input = Content(channel_, frame, true).to_file();
            error = job.child.start(options_.command, environment_for(tree_, channel_, frame),
                                    input.get());
        } catch (const Failure& failure) {
            // It may be better next time, and else it goes where others do that fail.
            remark(failure.text);
            return settle(job, nack_words(), nacked_);
        }
        if (error == 0) {
            jobs_.push_back(std::move(job));
            return;
        }
        // Every other message would fare the same. The lease goes back with the job.
        over_ = true;
        std::string name = escape_controls(options_.command.front());
        failure_ = Failure{kError, "cannot run " + name + ": " + describe(error)};
        settle(job, "nack", nacked_);
    }

    // Of the channel, looked up again now and then.
    std::int64_t lease_span() {
        if (lease_span_ == 0 || now() - lease_asked_ > kSecond) {
            lease_span_ = lease_time(channel_);
            lease_asked_ = now();
        }
        return lease_span_;
    }

    // ---- looking after those at work ----

    void look_after() {
        std::int64_t time = now();
        for (Job& job : jobs_) {
            if (job.child.kill_at() != 0) {
                if (time >= job.child.kill_at()) job.child.stop_for_good();
                if (job.lost) continue;
            }
            if (time >= job.renew_at) renew(job, time);
            if (job.limit_at != 0 && time >= job.limit_at && !job.late) {
                job.late = true;
                job.child.stop();
            }
        }
    }

    void renew(Job& job, std::int64_t time) {
        std::int64_t span = lease_span();
        job.renew_at = time + span / 3;
        int error = job.lease->tell(with_time("extend", span));
        if (error == 0) return;
        if (error == ESTALE || daemon_is_gone(error)) return lose(job);
        job.renew_at = time + span / 10;
    }

    void lose(Job& job) {
        if (job.lost) return;
        job.lost = true;
        remark(named(job) + ": the lease is lost; its command is stopped");
        job.child.stop();
    }

    // The first time no more is taken, the second time what runs is stopped, then killed.
    void listen() {
        if (Signals::times_told() == obeyed_) return;
        obeyed_ = Signals::times_told();
        over_ = true;
        if (obeyed_ == 1 && !jobs_.empty()) {
            remark("finishing " + std::to_string(jobs_.size()) +
                   (jobs_.size() == 1 ? " message" : " messages") + "; once more to stop at once");
        }
        for (Job& job : jobs_) {
            if (obeyed_ < 2) continue;
            job.given_up = true;
            if (obeyed_ == 2) {
                job.child.stop();
            } else {
                job.child.stop_for_good();
            }
        }
    }

    // ---- how it went ----

    void reap() {
        for (std::size_t i = 0; i < jobs_.size();) {
            auto status = jobs_[i].child.reap();
            if (!status) {
                ++i;
                continue;
            }
            Job job = std::move(jobs_[i]);
            jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(i));
            finish(job, *status);
        }
    }

    std::string nack_words() const {
        return options_.retry_delay.value_or(0) > 0 ? with_time("nack", *options_.retry_delay)
                                                    : "nack";
    }

    void finish(Job& job, int status) {
        if (job.lost) {
            ++lost_;
            return;
        }
        bool exited = WIFEXITED(status);
        int code = exited ? WEXITSTATUS(status) : -1;
        if (exited && code == 0) return settle(job, "ack", acked_);
        std::string what = job.late ? "over its limit of " + human_duration(*options_.limit)
                                    : describe_status(status);
        if (job.given_up) return settle(job, "nack", nacked_);
        bool hopeless = std::find(options_.dead_on.begin(), options_.dead_on.end(), code) !=
                        options_.dead_on.end();
        remark(named(job) + ": " + what +
               (hopeless ? "; it is a dead letter" : "; it is given back"));
        if (hopeless) return settle(job, "dead", dead_);
        settle(job, nack_words(), nacked_);
    }

    void settle(Job& job, const std::string& words, std::uint64_t& count) {
        int error = job.lease->tell(words);
        if (error == 0) {
            ++count;
            if (!taker_) taker_ = std::move(job.lease);
            return;
        }
        ++lost_;
        if (error == ESTALE) {
            return remark(named(job) + ": the lease had ended before its command did");
        }
        remark(named(job) + ": cannot say \"" + words + "\": " + describe(error));
    }

    // ---- waiting, and the end ----

    void wait() {
        std::int64_t until = now() + 3600 * kSecond;
        auto soon = [&](std::int64_t time) {
            if (time != 0) until = std::min(until, time);
        };
        for (const Job& job : jobs_) {
            if (!job.lost) soon(job.renew_at);
            if (!job.late) soon(job.limit_at);
            soon(job.child.kill_at());
        }
        std::vector<pollfd> files;
        if (!taking_over() && jobs_.size() < options_.jobs && taker_) {
            files.push_back({taker_->fd(), POLLIN, 0});
            if (options_.timeout) soon(idle_since_ + *options_.timeout);
        }
        if (!taking_over() && !taker_ && retry_at_ != 0) soon(retry_at_);
        // The commands may write to the terminal: no line of ours among theirs.
        if (jobs_.empty()) {
            show_progress("waiting for messages; " + std::to_string(acked_) + " done, " +
                          std::to_string(taken_ - acked_) + " not");
        }
        signals_.wait_for(files, std::max<std::int64_t>(until - now(), 0));
    }

    int result() const {
        if (globals_.json && options_.summary) {
            Pairs sums{{"channel", channel_.name},        {"taken", std::to_string(taken_)},
                       {"acked", std::to_string(acked_)}, {"nacked", std::to_string(nacked_)},
                       {"dead", std::to_string(dead_)},   {"lost", std::to_string(lost_)}};
            print(Json().object(sums).take());
        }
        if (failure_) throw Failure(*failure_);
        if (obeyed_ > 1 || (obeyed_ == 1 && Signals::told() == SIGINT))
            Signals::obey(Signals::told());
        if ((count_ || options_.drain) && acked_ < taken_) return kError;
        if (timed_out_ && !globals_.quiet && *options_.timeout > 0) {
            fail(kNothing,
                 channel_.shown() + ": no message within " + human_duration(*options_.timeout));
        }
        return timed_out_ ? kNothing : kOk;
    }

    static constexpr int kOpen = O_RDWR | O_NONBLOCK;
    static constexpr int kReopen = 10;
    static constexpr std::int64_t kComeBack = 20 * kSecond;

    const Globals& globals_;
    const WorkOptions& options_;
    const std::optional<std::uint64_t> count_ = options_.once ? 1 : options_.count;
    const Tree& tree_;
    const Channel& channel_;
    const Signals signals_;
    std::vector<Job> jobs_;
    std::unique_ptr<MessageReader> taker_;  // where the next message comes from
    int reopened_ = 0;
    const bool survives_ = find(parse_pairs(read_file(tree_.file("kern/ipc/version")).value_or("")),
                                "survives") == "yes";
    std::int64_t gone_since_ = 0;
    std::int64_t retry_at_ = 0;
    bool over_ = false;  // no more is taken
    bool timed_out_ = false;
    int obeyed_ = 0;  // how often it was told to end
    std::int64_t idle_since_ = 0;
    std::int64_t lease_span_ = 0;
    std::int64_t lease_asked_ = 0;
    std::uint64_t taken_ = 0;
    std::uint64_t acked_ = 0;
    std::uint64_t nacked_ = 0;
    std::uint64_t dead_ = 0;
    std::uint64_t lost_ = 0;
    std::optional<Failure> failure_;
};

}  // namespace

int work(const Globals& globals, const WorkOptions& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    require_leases(channel);
    return Foreman(globals, options, tree, channel).run();
}

}  // namespace ipcfs::client
