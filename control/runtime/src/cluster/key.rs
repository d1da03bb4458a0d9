//! The fleet's key: a Secret in Serin's own namespace, made by whichever process comes first.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::seal::Seal;

/// The key's name in the Secret.
const ENTRY: &str = "key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The API server did not give or take it.
    #[error("the Secret {name} with the fleet's key can be neither read nor made: {source}")]
    Unavailable {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// There is a Secret of that name, and it is something else.
    #[error("the Secret {name} holds no entry `key` of at least 32 bytes; delete it, and a new one is made")]
    Unusable {
        /// Its name.
        name: String,
    },
}

/// Reads the key, and makes it first if there is none.
pub(crate) async fn fleet_key(client: &Client, namespace: &str, name: &str) -> Result<Seal, KeyError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let unavailable = |source: kube::Error| KeyError::Unavailable { name: name.to_owned(), source: Box::new(source) };
    let unusable = || KeyError::Unusable { name: name.to_owned() };
    let found = match api.get_opt(name).await.map_err(unavailable)? {
        Some(found) => found,
        None => {
            let key = Seal::new_key().ok_or_else(unusable)?;
            let data = [(ENTRY.to_owned(), ByteString(key.to_vec()))].into();
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: Some(data), ..Secret::default() };
            match api.create(&PostParams::default(), &secret).await {
                Ok(made) => made,
                // Another replica was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await.map_err(unavailable)?,
                Err(error) => return Err(unavailable(error)),
            }
        }
    };
    let key = found.data.as_ref().and_then(|data| data.get(ENTRY));
    key.and_then(|key| Seal::new(&key.0)).ok_or_else(unusable)
}
