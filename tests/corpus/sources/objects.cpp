// What C++ compilers make of C++: vtables and thunks, exceptions and their landing pads, templates, lambdas, static locals.
// Every function is reached from main(), which prints one number.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#define KEEP __attribute__((noinline))

namespace geometry {

class Shape {
public:
    virtual ~Shape() = default;
    virtual double area() const = 0;
    virtual std::string name() const { return "shape"; }
    KEEP double scaled(double by) const { return area() * by; }
};

class Tagged {
public:
    virtual ~Tagged() = default;
    virtual int tag() const { return 1; }
    long padding = 0;
};

class Square : public Shape, public Tagged {
public:
    explicit Square(double side) : side_(side) {}
    double area() const override { return side_ * side_; }
    std::string name() const override { return "square"; }
    int tag() const override { return static_cast<int>(side_); }

private:
    double side_;
};

class Circle : public virtual Tagged, public Shape {
public:
    explicit Circle(double radius) : radius_(radius) {}
    double area() const override { return 3.14159 * radius_ * radius_; }

private:
    double radius_;
};

KEEP double total(const std::vector<std::unique_ptr<Shape>> &shapes)
{
    return std::accumulate(shapes.begin(), shapes.end(), 0.0, [](double sum, const auto &one) { return sum + one->area(); });
}

} // namespace geometry

struct Failure : std::runtime_error {
    explicit Failure(int code) : std::runtime_error("failure"), code(code) {}
    int code;
};

struct Guard {
    std::atomic<int> &count;
    explicit Guard(std::atomic<int> &count) : count(count) { ++count; }
    ~Guard() { --count; }
};

static std::atomic<int> open_guards;

KEEP int throws_when(int value, int limit)
{
    Guard guard(open_guards);
    std::string text = std::to_string(value);
    if (value > limit)
        throw Failure(value);
    return value + static_cast<int>(text.size());
}

KEEP int passes_on(int value)
{
    Guard guard(open_guards);
    std::vector<int> kept(static_cast<size_t>(value & 7) + 1, value);
    int result = throws_when(value, 10);
    return result + kept.back();
}

KEEP int catches(int value)
{
    try {
        return passes_on(value);
    } catch (const Failure &failure) {
        return -failure.code;
    } catch (const std::exception &) {
        return -1;
    } catch (...) {
        return -2;
    }
}

KEEP int rethrows(int value)
{
    try {
        try {
            return passes_on(value);
        } catch (...) {
            Guard guard(open_guards);
            throw;
        }
    } catch (const std::runtime_error &error) {
        return static_cast<int>(error.what()[0]);
    }
}

KEEP int never_throws(int value) noexcept { return catches(value) + 1; }

template <typename Number> KEEP Number power(Number base, unsigned exponent)
{
    Number result{1};
    while (exponent--)
        result *= base;
    return result;
}

template <typename... Numbers> KEEP auto sum(Numbers... numbers) { return (numbers + ...); }

KEEP const std::map<std::string, int> &table()
{
    static const std::map<std::string, int> made{{"one", 1}, {"two", 2}, {"three", 3}};
    return made;
}

KEEP std::string describe(const std::variant<int, double, std::string> &value)
{
    return std::visit(
        [](const auto &held) {
            std::ostringstream out;
            out << held;
            return out.str();
        },
        value);
}

KEEP std::optional<long> find(const std::unordered_map<long, long> &numbers, long key)
{
    auto found = numbers.find(key);
    return found == numbers.end() ? std::nullopt : std::optional<long>(found->second);
}

static KEEP int helper(int value) { return value * 2; }
namespace {
KEEP int helper(double value) { return static_cast<int>(value) + 3; }
} // namespace

int main()
{
    std::vector<std::unique_ptr<geometry::Shape>> shapes;
    for (int i = 1; i < 6; i++) {
        shapes.push_back(std::make_unique<geometry::Square>(i));
        shapes.push_back(std::make_unique<geometry::Circle>(i));
    }
    double value = geometry::total(shapes) + shapes[0]->scaled(2) + static_cast<double>(shapes[0]->name().size());
    for (int i = 0; i < 20; i++)
        value += catches(i) + rethrows(i) + never_throws(i);
    value += static_cast<double>(power(3, 4)) + power(1.5, 3) + sum(1, 2L, 3.5) + table().at("two") + helper(2) + helper(2.5);
    std::vector<std::string> words{"delta", "alpha", "charlie", "bravo"};
    std::sort(words.begin(), words.end(), [](const std::string &a, const std::string &b) { return a > b; });
    std::unordered_map<long, long> numbers;
    for (long i = 0; i < 100; i++)
        numbers[i * i] = i;
    value += static_cast<double>(find(numbers, 81).value_or(0) + find(numbers, 82).value_or(5));
    std::mutex mutex;
    long together = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; i++)
        threads.emplace_back([&, i] {
            std::lock_guard<std::mutex> held(mutex);
            together += i;
        });
    for (auto &thread : threads)
        thread.join();
    std::function<int(int)> twice = [](int number) { return number * 2; };
    std::cout << value + static_cast<double>(together) + twice(4) << words.front() << describe(2.5) << describe("x") << '\n';
    return open_guards;
}
