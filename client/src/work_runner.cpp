// `ipcfs work`: leases messages one by one, runs a command for each, and acknowledges or gives back
// the message according to the exit code. A lease is renewed while its command runs. A command
// whose lease is lost is killed, since another worker may have the message. One thread; signals
// arrive only while it waits.
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
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <message_body.hpp>
#include <message_reader.hpp>
#include <signals.hpp>
#include <text.hpp>
#include <work.hpp>

namespace ipcfs::client {
namespace {

// A message in progress.
struct Job {
    std::unique_ptr<MessageReader> lease;
    Child child;
    std::uint64_t sequence = 0;
    std::int64_t renew_at = 0;
    std::int64_t limit_at = 0;  // 0: never
    bool lost = false;          // the lease is lost
    bool late = false;          // stopped at its time limit
    bool given_up = false;      // stopped because everything is
};

class WorkRunner {
public:
    WorkRunner(const Globals& globals, const WorkOptions& options, const Tree& tree,
               const Channel& channel)
        : globals_(globals), options_(options), tree_(tree), channel_(channel) {}

    int run() {
        for (;;) {
            reap();
            check_signals();
            if (!is_stopping()) start_jobs();
            if (jobs_.empty() && is_stopping()) break;
            wait();
            supervise();
        }
        clear_progress();
        return result();
    }

private:
    bool is_stopping() const { return stopping_ || (count_ && taken_ >= *count_); }

    void remark(const std::string& text) const {
        if (globals_.quiet) return;
        clear_progress();
        std::fprintf(stderr, "ipcfs: %s\n", text.c_str());
    }
    std::string named(const Job& job) const {
        return channel_.shown() + ": message " + std::to_string(job.sequence);
    }

    // ---- taking messages ----

    void start_jobs() {
        if (retry_at_ > now()) return;
        while (!is_stopping() && jobs_.size() < options_.jobs) {
            if (!reader_ && !open_reader()) return;
            FrameView frame;
            int error = reader_->try_receive(frame);
            if (error == 0 || error == EAGAIN) gone_since_ = retry_at_ = 0;
            if (error == 0) {
                idle_since_ = 0;
                reopened_ = 0;
                begin(frame);
            } else if (error == EAGAIN) {
                return be_idle();
            } else if ((error == ESTALE || error == EIO) && ++reopened_ < kReopen) {
                reader_.reset();  // it belongs to a daemon that died
            } else if (daemon_is_gone(error) && await_daemon()) {
                return;
            } else {
                give_up(error);
            }
        }
    }

    // Whether to wait for a dead daemon. A successor restores the tree and durable channels, but no
    // leases.
    bool await_daemon() {
        if (!survives_) return false;
        for (Job& job : jobs_) drop_lease(job);
        if (gone_since_ == 0) {
            gone_since_ = now();
            remark("the daemon is gone; waiting for its successor");
        }
        reader_.reset();
        retry_at_ = now() + kSecond / 10;
        return now() - gone_since_ < kDaemonTimeout;
    }

    bool open_reader() {
        try {
            reader_ = std::make_unique<MessageReader>(channel_, "framed/lease", kOpen);
            return true;
        } catch (Failure& failure) {
            bool gone = gone_since_ != 0 || health(tree_.root()) == Health::kDead;
            if (failure.code == kGone && gone && await_daemon()) return false;
            failure_ = std::move(failure);
            stopping_ = true;
            return false;
        }
    }

    void be_idle() {
        if (idle_since_ == 0) idle_since_ = now();
        if (options_.drain && jobs_.empty()) stopping_ = true;
        if (options_.timeout && now() - idle_since_ >= *options_.timeout)
            stopping_ = timed_out_ = true;
    }

    void give_up(int error) {
        stopping_ = true;
        try {
            if (error == EPIPE) fail(kGone, channel_.shown() + " was removed");
            fail_errno(channel_.shown(), error);
        } catch (Failure& failure) {
            failure_ = std::move(failure);
        }
        // Without a daemon there are no leases.
        for (Job& job : jobs_) {
            if (daemon_is_gone(error)) drop_lease(job);
        }
    }

    void begin(const FrameView& frame) {
        clear_progress();
        Job job;
        job.lease = std::move(reader_);
        job.sequence = frame.header.sequence;
        ++taken_;
        job.renew_at = now() + lease_span() / 3;
        if (options_.limit) job.limit_at = now() + *options_.limit;
        int error = 0;
        try {
            Fd input = MessageBody(channel_, frame, true).to_file();
            error = job.child.start(options_.command, environment_for(tree_, channel_, frame),
                                    input.get());
        } catch (const Failure& failure) {
            // Give the message back: the next attempt may succeed, or else it becomes a dead letter.
            remark(failure.text);
            return settle(job, nack_words(), nacked_);
        }
        if (error == 0) {
            jobs_.push_back(std::move(job));
            return;
        }
        // Every other message would fail, too. Destroying the job gives back the lease.
        stopping_ = true;
        std::string name = escape_controls(options_.command.front());
        failure_ = Failure{kError, "cannot run " + name + ": " + describe(error)};
        settle(job, "nack", nacked_);
    }

    // The channel's lease time in ns, read at most once a second.
    std::int64_t lease_span() {
        if (lease_span_ == 0 || now() - lease_read_at_ > kSecond) {
            lease_span_ = lease_time(channel_);
            lease_read_at_ = now();
        }
        return lease_span_;
    }

    // ---- supervising running commands ----

    void supervise() {
        std::int64_t time = now();
        for (Job& job : jobs_) {
            if (job.child.kill_at() != 0) {
                if (time >= job.child.kill_at()) job.child.kill();
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
        int error = job.lease->command(with_time("extend", span));
        if (error == 0) return;
        if (error == ESTALE || daemon_is_gone(error)) return drop_lease(job);
        job.renew_at = time + span / 10;
    }

    void drop_lease(Job& job) {
        if (job.lost) return;
        job.lost = true;
        remark(named(job) + ": the lease is lost; stopping its command");
        job.child.stop();
    }

    // The first stop signal ends taking messages, the second stops the running commands, the third
    // kills them.
    void check_signals() {
        if (Signals::stop_count() == stop_requests_) return;
        stop_requests_ = Signals::stop_count();
        stopping_ = true;
        if (stop_requests_ == 1 && !jobs_.empty()) {
            remark("finishing " + std::to_string(jobs_.size()) +
                   (jobs_.size() == 1 ? " message" : " messages") +
                   "; signal again to stop at once");
        }
        for (Job& job : jobs_) {
            if (stop_requests_ < 2) continue;
            job.given_up = true;
            if (stop_requests_ == 2) {
                job.child.stop();
            } else {
                job.child.kill();
            }
        }
    }

    // ---- results ----

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
               (hopeless ? "; made it a dead letter" : "; gave it back"));
        if (hopeless) return settle(job, "dead", dead_);
        settle(job, nack_words(), nacked_);
    }

    void settle(Job& job, const std::string& words, std::uint64_t& count) {
        int error = job.lease->command(words);
        if (error == 0) {
            ++count;
            if (!reader_) reader_ = std::move(job.lease);
            return;
        }
        ++lost_;
        if (error == ESTALE) {
            return remark(named(job) + ": the lease ended before its command did");
        }
        remark(named(job) + ": \"" + words + "\" failed: " + describe(error));
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
        if (!is_stopping() && jobs_.size() < options_.jobs && reader_) {
            files.push_back({reader_->fd(), POLLIN, 0});
            if (options_.timeout) soon(idle_since_ + *options_.timeout);
        }
        if (!is_stopping() && !reader_ && retry_at_ != 0) soon(retry_at_);
        // Show no progress while commands run, since they may write to the terminal.
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
            print_json(to_json(sums));
        }
        if (failure_) throw Failure(*failure_);
        if (stop_requests_ > 1 || (stop_requests_ == 1 && Signals::last_stop_signal() == SIGINT))
            end_by(Signals::last_stop_signal());
        if ((count_ || options_.drain) && acked_ < taken_) return kError;
        return timed_out_ ? no_message(globals_, channel_, options_.timeout) : kOk;
    }

    static constexpr int kOpen = O_RDWR | O_NONBLOCK;
    static constexpr int kReopen = 10;
    static constexpr std::int64_t kDaemonTimeout = 20 * kSecond;

    const Globals& globals_;
    const WorkOptions& options_;
    const std::optional<std::uint64_t> count_ = options_.once ? 1 : options_.count;
    const Tree& tree_;
    const Channel& channel_;
    const Signals signals_;
    std::vector<Job> jobs_;
    std::unique_ptr<MessageReader> reader_;  // for the next message
    int reopened_ = 0;
    const bool survives_ = find(tree_.version(), "survives") == "yes";
    std::int64_t gone_since_ = 0;
    std::int64_t retry_at_ = 0;
    bool stopping_ = false;  // take no more messages
    bool timed_out_ = false;
    int stop_requests_ = 0;  // stop signals handled so far
    std::int64_t idle_since_ = 0;
    std::int64_t lease_span_ = 0;
    std::int64_t lease_read_at_ = 0;
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
    return WorkRunner(globals, options, tree, channel).run();
}

}  // namespace ipcfs::client
