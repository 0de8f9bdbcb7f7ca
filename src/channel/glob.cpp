// The pattern's tokens are the states of an automaton that is in several at once. Any thread.
#include <channel/glob.hpp>

namespace ipcfs::channel {

Result<Glob> Glob::parse(std::string_view pattern, bool is_path) {
    if (pattern.empty() || pattern.size() > kLongest) {
        return Fault{EINVAL, "a pattern has 1 to 255 bytes"};
    }
    Glob glob;
    glob.is_path_ = is_path;
    auto byte = [&](std::size_t at) { return static_cast<unsigned char>(pattern[at]); };
    auto add = [&](Token::Kind kind, const Set& set = {}) {
        Token token;
        token.kind = kind;
        token.set = set;
        glob.tokens_.push_back(token);
    };
    for (std::size_t at = 0; at < pattern.size(); ++at) {
        Set set;
        switch (pattern[at]) {
            case '*': {
                std::size_t stars = 1;
                while (at + 1 < pattern.size() && pattern[at + 1] == '*') ++at, ++stars;
                if (!is_path || stars == 1) {
                    add(Token::Kind::kAny);
                    break;
                }
                bool starts = at + 1 == stars || pattern[at - stars] == '/';
                add(Token::Kind::kAnywhere);
                glob.tokens_.back().may_skip_slash =
                    starts && at + 1 < pattern.size() && pattern[at + 1] == '/';
                break;
            }
            case '?':
                set.set();
                if (is_path) set.reset('/');
                add(Token::Kind::kOne, set);
                break;
            case '[': {
                std::size_t from = at + 1;
                bool negated = from < pattern.size() && pattern[from] == '!';
                from += negated;
                std::size_t end = pattern.find(']', from + 1);  // a ] that comes first is meant
                if (end == std::string_view::npos) {
                    return Fault{EINVAL, "a pattern's [ has no ]"};
                }
                for (std::size_t i = from; i < end; ++i) {
                    unsigned first = byte(i), last = first;
                    if (i + 2 < end && pattern[i + 1] == '-') {
                        last = byte(i + 2);
                        i += 2;
                    }
                    for (unsigned c = first; c <= last; ++c) set.set(c);
                }
                if (negated) set.flip();
                if (is_path) set.reset('/');
                add(Token::Kind::kOne, set);
                at = end;
                break;
            }
            case '\\':
                if (++at == pattern.size()) return Fault{EINVAL, "a pattern ends with a lone \\"};
                [[fallthrough]];
            default: set.set(byte(at)); add(Token::Kind::kOne, set);
        }
    }
    return glob;
}

bool Glob::matches(std::string_view text) const {
    using Kind = Token::Kind;
    // Bit i: the tokens before i have matched what was read. Stars may be passed over, and no two of
    // them follow each other.
    using States = std::bitset<kLongest + 1>;
    States now, next;
    auto enter = [&](const auto& self, States& states, std::size_t state) -> void {
        for (;; ++state) {
            states.set(state);
            if (state == tokens_.size() || tokens_[state].kind == Kind::kOne) return;
            if (tokens_[state].may_skip_slash) self(self, states, state + 2);
        }
    };
    enter(enter, now, 0);
    for (char c : text) {
        next.reset();
        for (std::size_t i = 0; i < tokens_.size(); ++i) {
            if (!now.test(i)) continue;
            switch (tokens_[i].kind) {
                case Kind::kOne:
                    if (tokens_[i].set.test(static_cast<unsigned char>(c)))
                        enter(enter, next, i + 1);
                    break;
                case Kind::kAny:
                    if (is_path_ && c == '/') break;
                    [[fallthrough]];
                case Kind::kAnywhere: next.set(i); enter(enter, next, i + 1);
            }
        }
        if (next.none()) return false;
        now = next;
    }
    return now.test(tokens_.size());
}

}  // namespace ipcfs::channel
