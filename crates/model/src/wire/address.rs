//! What an entry of an access list looks like.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

/// `10.0.0.1`
const IPV4: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// `2001:db8::1`: groups on both sides of at most one `::`, eight at most.
const IPV6: &str = "(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,7}:|([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4}\
    |([0-9a-f]{1,4}:){1,5}(:[0-9a-f]{1,4}){1,2}|([0-9a-f]{1,4}:){1,4}(:[0-9a-f]{1,4}){1,3}\
    |([0-9a-f]{1,4}:){1,3}(:[0-9a-f]{1,4}){1,4}|([0-9a-f]{1,4}:){1,2}(:[0-9a-f]{1,4}){1,5}\
    |[0-9a-f]{1,4}:(:[0-9a-f]{1,4}){1,6}|:((:[0-9a-f]{1,4}){1,7}|:))";

fn address() -> String {
    format!("{IPV4}|{IPV6}")
}

fn block() -> String {
    format!("{IPV4}/(3[0-2]|[12]?[0-9])|{IPV6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])")
}

fn either() -> String {
    format!("{}|{}", address(), block())
}

macro_rules! pattern {
    ($(#[$doc:meta] $name:ident($pattern:expr)),* $(,)?) => {$(
        #[$doc]
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let pattern = format!("^({})$", $pattern);
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build().into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

pattern! {
    /// An IP address.
    IpAddress(address()),
    /// A CIDR block.
    CidrBlock(block()),
    /// One or the other.
    AddressOrBlock(either()),
}
